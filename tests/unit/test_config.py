"""Settings are checked at start: every fault is reported at once, and no secret is printed."""

import re
from pathlib import Path

import certifi
import pytest
from cryptography.hazmat.primitives import serialization
from pydantic import SecretStr
from sqlalchemy import make_url

from service import config
from service.config import Settings
from service.config.secret_files import SecretFiles
from service.domain.errors import Misconfigured
from service.domain.rate_limit import LimitScope, RateLimit
from stack.certificates import Authority

GOOD = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "DATABASE_URL": "postgresql://user@127.0.0.1:5432/coupons",
    "REDIS_URL": "redis://127.0.0.1:6379/0",
    "CELERY_BROKER_URL": "redis://127.0.0.1:6379/1",
    "REQUEST_ID_KEYS": "k" * 16,
}
SECRET = "whsec_" + "A" * 32
TLS = {"KAFKA_SECURITY_PROTOCOL": "ssl"}
SASL = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}
LOGIN = {"KAFKA_SASL_USERNAME": "me", "KAFKA_SASL_PASSWORD": "my-password"}
OAUTH = {
    **SASL,
    "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
    "KAFKA_OAUTH_TOKEN_URL": "https://id.example/token",
    "KAFKA_OAUTH_CLIENT_ID": "me",
    "KAFKA_OAUTH_CLIENT_SECRET": "my-secret",
}
KEYS = {"JWT_JWKS_URL": "https://id.example/keys"}
#: arguments of redis-py that would change replies, retries, the login or the address
_UNSUPPORTED_BY_REDIS = (
    *("bogus", "decode_responses", "retry", "retry_on_error", "retry_on_timeout", "redis_connect_func", "parser_class"),
    *("credential_provider", "protocol", "encoding", "db", "host", "username", "password", "ssl_validate_ocsp"),
)
TOKENS = {"JWT_AUDIENCE": "coupons", "TICKET_KEYS": "t" * 16}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the required variables and remove every other variable of the service."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"{name.upper()}_FILE", raising=False)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def _faults() -> tuple[str, ...]:
    with pytest.raises(Misconfigured) as caught:
        config.load()
    return caught.value.faults


def test_no_module_replaces_a_check_of_another() -> None:
    """The modules are bases of one class, in which a later method hides one of the same name without an error."""
    checks = [
        name for base in Settings.__bases__ for name, found in vars(base).items() if isinstance(found, classmethod)
    ]
    checks = [name for name in checks if not name.startswith("__")]

    assert len(checks) > 10
    assert sorted(set(checks)) == sorted(checks)


def test_the_required_variables_suffice() -> None:
    """Four addresses and the keys are required, and the defaults of everything else are safe."""
    settings = config.load()

    assert (settings.api_host, settings.issuer_host) == ("127.0.0.1", "127.0.0.1")
    assert settings.fault_injection is False
    assert settings.mac_keys == (b"k" * 16,)


def test_every_fault_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed start reports every fault, each with the name of its variable."""
    for name in GOOD:
        monkeypatch.delenv(name)
    monkeypatch.setenv("API_PORT", "http")
    monkeypatch.setenv("WEBHOOK_URL", "ftp://receiver")
    monkeypatch.setenv("LOG_LEVEL", "loud")

    named = {fault.partition(":")[0] for fault in _faults()}

    assert named == {*GOOD, "API_PORT", "WEBHOOK_URL", "LOG_LEVEL"}


def test_the_variables_of_kubernetes_services_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service named `api` or `issuer` sets them in every pod of its namespace. Another fault is still one."""
    for name, value in {"API_PORT": "tcp://10.0.0.1:8000", "ISSUER_PORT": "udp://[fd00::1]:8001"}.items():
        monkeypatch.setenv(name, value)
    settings = config.load()
    monkeypatch.setenv("API_PORT", "http://10.0.0.1:8000")

    assert (settings.api_port, settings.issuer_port) == (8000, 8001)
    assert [fault.partition(":")[0] for fault in _faults()] == ["API_PORT"]


def test_an_empty_variable_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing key is an error at start, and so is an empty one."""
    monkeypatch.setenv("REQUEST_ID_KEYS", "")

    assert [fault.partition(":")[0] for fault in _faults()] == ["REQUEST_ID_KEYS"]


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"DATABASE_URL": "mysql://user@host/db"}, "DATABASE_URL: "),
        ({"DATABASE_URL": "coupons"}, "DATABASE_URL: "),
        (
            {"DATABASE_URL": "postgresql://user@host/db?bogus=1&worse=2"},
            "DATABASE_URL: has options that are not supported (2); supported are: application_name, ",
        ),
        ({"DATABASE_URL": "postgresql://user@host/db?sslmode=maybe"}, "DATABASE_URL: invalid sslmode value"),
        ({"DATABASE_URL": "postgresql://user@host/db?port=x"}, "DATABASE_URL: is not a URL with hosts and ports"),
        ({"DATABASE_URL": "postgresql://user@host:65536/db"}, "DATABASE_URL: is not a URL with one host and one port"),
        (
            {"DATABASE_URL": "postgresql://user@one:5432,two:x/db"},
            "DATABASE_URL: has a host or a port that is malformed",
        ),
        (
            {"DATABASE_URL": "postgresql://user@one,two:65536/db"},
            "DATABASE_URL: has a host or a port that is malformed",
        ),
        (
            {"DATABASE_URL": "postgresql://user@host/db?connect_timeout=0"},
            "DATABASE_URL: connect_timeout must be a number",
        ),
        (
            {"DATABASE_URL": "postgresql://user@host/db?connect_timeout=x"},
            "DATABASE_URL: connect_timeout must be a number",
        ),
        (
            {"DATABASE_URL": "postgresql://user@host/db?sslmode=require&sslmode=disable"},
            "DATABASE_URL: has an option more than once",
        ),
        (
            {"DATABASE_URL": "postgresql://user@host/db?options=-csearch_path%3Da&options=-cjit%3Don"},
            "DATABASE_URL: has an option more than once",
        ),
        *(
            (
                {"DATABASE_URL": f"postgresql://user@host/db?options={options}"},
                f"DATABASE_URL: sets {name} in `options`",
            )
            for name, options in {
                "lock_timeout": "-c%20lock_timeout%3D0",
                "statement_timeout": "-cstatement_timeout%3D1h",
                "idle_in_transaction_session_timeout": "--idle-in-transaction-session-timeout%3D0",
                "timezone": "-c%20search_path%3Da%20-cTimeZone%3DAsia/Seoul",
            }.items()
        ),
        *(
            (
                {"MIGRATE_DATABASE_URL": f"postgresql://user@host/db?options={options}"},
                "MIGRATE_DATABASE_URL: has something in `options` that is not -c name=value",
            )
            for options in ("-e", "-c", "-c%20jit", "--jit", "jit%3Doff", "-c%20%3D1", "-S%20100")
        ),
        ({"MIGRATE_DATABASE_URL": "mysql://owner@host/db"}, "MIGRATE_DATABASE_URL: must begin with postgresql://"),
        (
            {"MIGRATE_DATABASE_URL": "postgresql://owner@host/db", "DATABASE_URL": "postgresql://host/db"},
            "MIGRATE_DATABASE_URL: needs the name of a role in DATABASE_URL",
        ),
        ({"MIGRATE_DATABASE_URL": "postgresql://owner@host/db", "DATABASE_URL": "coupons"}, "DATABASE_URL: "),
        ({"REDIS_URL": "http://127.0.0.1"}, "REDIS_URL: "),
        *(
            (
                {"REDIS_URL": f"rediss://host/0?{option}=1"},
                "REDIS_URL: has options that are not supported (1); supported",
            )
            for option in _UNSUPPORTED_BY_REDIS
        ),
        ({"REDIS_URL": "redis://host/0?ssl_ciphers=x"}, "REDIS_URL: has options that are not supported (1); supported"),
        *(
            ({"REDIS_URL": f"rediss://host/0?{option}"}, f"REDIS_URL: {option.partition('=')[0]} must be ")
            for option in (
                *("socket_timeout=soon", "socket_timeout=0", "socket_connect_timeout=-1", "socket_timeout=nan"),
                *("max_connections=0", "health_check_interval=1.5", "client_name=a%20b", "socket_keepalive=maybe"),
                *("ssl_cert_reqs=maybe", "ssl_cert_reqs=CERT_REQUIRED", "ssl_check_hostname=off"),
                *("ssl_min_version=770", "ssl_include_verify_flags=strict"),
            )
        ),
        ({"REDIS_URL": "rediss://host/0?ssl_ciphers=none"}, "REDIS_URL: ssl_ciphers names no cipher"),
        (
            {"REDIS_URL": "rediss://host/0?ssl_include_verify_flags=VERIFY_NOTHING"},
            "REDIS_URL: Invalid value for 'ssl_include_verify_flags'",
        ),
        ({"REDIS_URL": "redis://host/gate"}, "REDIS_URL: the database must be a number"),
        ({"REDIS_URL": "redis://host:6379x/0"}, "REDIS_URL: is not a URL with one host and one port"),
        *(
            (
                {"CELERY_BROKER_URL": f"redis://host/1?{option}=1"},
                "CELERY_BROKER_URL: has options that are not supported (1); supported are: none",
            )
            for option in ("bogus", "socket_timeout", "virtual_host", "db")
        ),
        ({"CELERY_BROKER_URL": GOOD["REDIS_URL"]}, "CELERY_BROKER_URL: must not name the database of REDIS_URL"),
        ({"REDIS_URL": "sentinel://host:26379/0"}, "REDIS_URL: must have the form redis+sentinel://"),
        (
            {"CELERY_BROKER_URL": "sentinel://one:26379/1;sentinel://two:26379/1"},
            "CELERY_BROKER_URL: must have the form redis+sentinel://",
        ),
        *(
            ({"REDIS_URL": f"redis+sentinel://{rest}"}, f"REDIS_URL: {reason}")
            for rest, reason in {
                "one,two/0": "needs master_name, the name under which Sentinel watches the primary",
                "one,:26379/0?master_name=a": "has a Sentinel without a host",
                "one:x,two/0?master_name=a": "has a host or a port that is malformed",
                "one:65536,two/0?master_name=a": "has a host or a port that is malformed",
                "one,two/0?master_name=a&sentinel_username=me": "has sentinel_username without sentinel_password",
                "one,two/0?master_name=a&master_name=b": "has an option more than once",
                "one,two/0?master_name=a&sentinel_username=me&sentinel_password=": "has an option without a value",
                "one,two/0?master_name=a&bogus=1": "has options that are not supported (1); supported",
                "one,two/0?master_name=a&ssl_ca_certs=/etc/ca.pem": "has options that are not supported (1)",
                "one,two/gate?master_name=a": "the database must be a number",
            }.items()
        ),
        (
            {
                "REDIS_URL": "redis+sentinel://one,two/1?master_name=a",
                "CELERY_BROKER_URL": "redis+sentinel://me:mine@two:26379,three/1?master_name=a",
            },
            "CELERY_BROKER_URL: must not name the database of REDIS_URL",
        ),
        (
            {"REDIS_URL": "redis://host", "CELERY_BROKER_URL": "redis://:pw@host:6379/0"},
            "CELERY_BROKER_URL: must not name the database of REDIS_URL",
        ),
        *(
            ({"KAFKA_BOOTSTRAP_SERVERS": servers}, "KAFKA_BOOTSTRAP_SERVERS: must be host:port, separated by commas")
            for servers in (",", "host:port", "host:0", "host:65536", "kafka://host:9092", "me:pw@host:9092", "a b:1")
        ),
        ({"KAFKA_SECURITY_PROTOCOL": "tls"}, "KAFKA_SECURITY_PROTOCOL: must be one of plaintext, ssl"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "sasl_ssl"},
            "KAFKA_SASL_MECHANISM: is needed by KAFKA_SECURITY_PROTOCOL=sasl_ssl",
        ),
        ({"KAFKA_SASL_MECHANISM": "PLAIN", **LOGIN}, "KAFKA_SASL_MECHANISM: has no effect without SASL"),
        ({"KAFKA_SASL_USERNAME": "me"}, "KAFKA_SASL_USERNAME: is used by the mechanisms PLAIN and SCRAM only"),
        ({**SASL, "KAFKA_SASL_MECHANISM": "AWS_MSK_IAM"}, "KAFKA_SASL_MECHANISM: must be one of PLAIN"),
        ({**SASL, "KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_SASL_USERNAME": "me"}, "KAFKA_SASL_PASSWORD: is needed by"),
        ({**SASL, **LOGIN, "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512", "KAFKA_OAUTH_SCOPE": "s"}, "KAFKA_OAUTH_SCOPE: is"),
        (
            {**OAUTH, "KAFKA_OAUTH_TOKEN_URL": ""},
            "KAFKA_OAUTH_TOKEN_URL: is needed by KAFKA_SASL_MECHANISM=OAUTHBEARER",
        ),
        (
            {**OAUTH, "KAFKA_OAUTH_TOKEN_URL": "http://id.example/token"},
            "KAFKA_OAUTH_TOKEN_URL: must begin with https://",
        ),
        ({**OAUTH, "KAFKA_OAUTH_EXTENSIONS": "cluster"}, "KAFKA_OAUTH_EXTENSIONS: must be name=value"),
        ({"KAFKA_SSL_CA": "/etc/hostname"}, "KAFKA_SSL_CA: has no effect without TLS"),
        ({"KAFKA_SSL_VERIFY_HOSTNAME": "false"}, "KAFKA_SSL_VERIFY_HOSTNAME: has no effect without TLS"),
        ({**TLS, "KAFKA_SSL_CA": "/absent"}, "KAFKA_SSL_CA: cannot be read: No such file or directory: /absent"),
        ({**TLS, "KAFKA_SSL_CA": __file__}, "KAFKA_SSL_CA: Kafka's client refuses it: "),
        ({**TLS, "KAFKA_SSL_KEY": __file__}, "KAFKA_SSL_KEY: and KAFKA_SSL_CERTIFICATE go together"),
        ({**TLS, "KAFKA_SSL_KEY_PASSWORD": "p"}, "KAFKA_SSL_KEY: is needed by KAFKA_SSL_KEY_PASSWORD"),
        ({"REQUEST_ID_KEYS": "k" * 15}, "REQUEST_ID_KEYS: each key must have at least 16 bytes"),
        ({"REQUEST_ID_KEYS": "k" * 16 + ","}, "REQUEST_ID_KEYS: each key must have at least 16 bytes"),
        ({"TOPIC_PARTITIONS": "0"}, "TOPIC_PARTITIONS: "),
        (
            {"TOPIC_REPLICATION": "1", "TOPIC_MIN_INSYNC_REPLICAS": "2"},
            "TOPIC_MIN_INSYNC_REPLICAS: must not exceed TOPIC_REPLICATION",
        ),
        ({"AUTH": "off", "API_HOST": "0.0.0.0"}, "API_HOST: 0.0.0.0 is not a loopback address"),
        ({"AUTH": "off", "ISSUER_HOST": "::"}, "ISSUER_HOST: :: is not a loopback address"),
        ({"AUTH": "off", "API_HOST": "coupons.example"}, "API_HOST: coupons.example is not a loopback address"),
        *(
            ({"CORS_ORIGINS": origin}, f"CORS_ORIGINS: {origin} ")
            for origin in (
                "*",
                "null",
                "shop.example",
                "//shop.example",
                "https://*.example",
                "https://shop.example/",
                "https://shop.example/a",
                "https://shop.example?a",
                "https://a@shop.example",
                "https://Shop.example",
                "https://쿠폰.example",
                "https://shop.example:0",
                "https://shop.example:443",
                "http://shop.example:80",
                "https://",
                "ftp://shop.example",
                "https://shop.example;",
                "https://shop.example 'unsafe-inline'",
            )
        ),
        ({"JWT_ISSUER": "i", "JWT_ALGORITHMS": "HS256", **TOKENS}, "JWT_SECRET: is needed by JWT_ISSUER"),
        ({"JWT_ISSUER": "i", "JWT_ALGORITHMS": "ES256", **TOKENS}, "JWT_JWKS_URL: is needed by JWT_ISSUER"),
        ({"JWT_SECRET": "s" * 31}, "JWT_SECRET: must have at least 32 bytes"),
        ({"JWT_ALGORITHMS": "HS256,RS256"}, "JWT_ALGORITHMS: must be HS256, or some of"),
        ({"JWT_ALGORITHMS": "none"}, "JWT_ALGORITHMS: must be HS256, or some of"),
        ({"JWT_ISSUER": "i", "JWT_ALGORITHMS": " HS256", **TOKENS}, "JWT_SECRET: is needed by JWT_ISSUER"),
        ({"JWT_ISSUER": "i", "JWT_ALGORITHMS": "HS256,HS256", **TOKENS}, "JWT_SECRET: is needed by JWT_ISSUER"),
        ({"JWT_ISSUER": "i", "JWT_ALGORITHMS": " , ", **TOKENS}, "JWT_ALGORITHMS: is needed by JWT_ISSUER"),
        ({"JWT_JWKS_URL": "http://id.example/keys"}, "JWT_JWKS_URL: must begin with https://"),
        ({"JWT_JWKS_CA": __file__}, "JWT_JWKS_CA: has no effect without JWT_JWKS_URL"),
        ({**KEYS, "JWT_JWKS_CA": __file__}, "JWT_JWKS_CA: has no certificate in PEM format: /"),
        ({**KEYS, "JWT_JWKS_CA": "/absent"}, "JWT_JWKS_CA: cannot be read: No such file or directory: /absent"),
        ({**KEYS, "JWT_JWKS_CA": "/tmp"}, "JWT_JWKS_CA: is a directory: /tmp: name one file in PEM format"),
        ({**TLS, "KAFKA_SSL_CA": "/tmp"}, "KAFKA_SSL_CA: is a directory: /tmp: name one file in PEM format"),
        ({"JWT_JWKS_URL": "https://id.example:abc/keys"}, "JWT_JWKS_URL: is not a URL with one host and one port"),
        ({"JWT_JWKS_URL": "https:///keys"}, "JWT_JWKS_URL: is not a URL with one host and one port"),
        ({"JWT_JWKS_URL": "https://id.\x7fexample/keys"}, "JWT_JWKS_URL: is not a URL with one host and one port"),
        ({"JWT_JWKS_URL": "https://us3r:55@id.example/keys"}, "JWT_JWKS_URL: must not have a user name or a password"),
        ({"JWT_JWKS_URL": "https://us3r:5/5@id.example/keys"}, "JWT_JWKS_URL: the characters"),
        ({"TICKET_KEYS": "k" * 15}, "TICKET_KEYS: each key must have at least 16 bytes"),
        ({"AUTH": "of"}, "AUTH: "),
        ({"WEBHOOK_URL": "https://receiver:abc", "WEBHOOK_SECRET": SECRET}, "WEBHOOK_URL: is not a URL with one host"),
        ({"WEBHOOK_URL": "https://receiver"}, "WEBHOOK_SECRET: is required by WEBHOOK_URL"),
        (
            {"WEBHOOK_URL": "https://receiver", "WEBHOOK_SECRET": "whsec_short"},
            "WEBHOOK_SECRET: is required by WEBHOOK_URL",
        ),
        (
            {"WEBHOOK_URL": "https://receiver", "WEBHOOK_SECRET": SECRET + "\n"},
            "WEBHOOK_SECRET: is required by WEBHOOK_URL",
        ),
        (  # base64 never has this length
            {"WEBHOOK_URL": "https://receiver", "WEBHOOK_SECRET": SECRET + "A"},
            "WEBHOOK_SECRET: is required by WEBHOOK_URL",
        ),
        ({"ROOT_PATH": "shop"}, "ROOT_PATH: must be a path such as /coupons-api"),
        ({"ROOT_PATH": "/"}, "ROOT_PATH: must be a path such as /coupons-api"),
        ({"ROOT_PATH": "/shop/"}, "ROOT_PATH: must be a path such as /coupons-api"),
        ({"ROOT_PATH": "//evil.example"}, "ROOT_PATH: must be a path such as /coupons-api"),
        ({"KEEP_ALIVE_SECONDS": "4"}, "KEEP_ALIVE_SECONDS: "),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT: "),
        ({"RATE_LIMIT_USER": "10"}, "RATE_LIMIT_USER: must be 0, or requests/seconds such as 10/2"),
        ({"RATE_LIMIT_ADDRESS": "0/1"}, "RATE_LIMIT_ADDRESS: must be 0, or requests/seconds such as 10/2"),
        ({"RATE_LIMIT_ALL": "1000001/1"}, "RATE_LIMIT_ALL: must not exceed"),
        ({"RATE_LIMIT_ALL": "1/86401"}, "RATE_LIMIT_ALL: must not exceed"),
        ({"TRUSTED_PROXIES": "10.0.0.1/8"}, "TRUSTED_PROXIES: must be networks such as 10.0.0.0/8"),
        ({"TRUSTED_PROXIES": "proxy.example"}, "TRUSTED_PROXIES: must be networks such as 10.0.0.0/8"),
        ({"TRUSTED_PROXY_HEADER": "x-real-ip"}, "TRUSTED_PROXY_HEADER: "),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT: must begin with https://"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://user:password@collector"},
            "OTEL_EXPORTER_OTLP_ENDPOINT: must not have a user name or a password",
        ),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL: "),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, "OTEL_TRACES_SAMPLER: "),
        ({"OTEL_TRACES_SAMPLER_ARG": "1.1"}, "OTEL_TRACES_SAMPLER_ARG: "),
        ({"OTEL_TRACES_SAMPLER_ARG": "nan"}, "OTEL_TRACES_SAMPLER_ARG: "),
    ],
)
def test_each_contradiction_is_refused(variables: dict[str, str], fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that cannot work prevent the start, and the message names the one variable to correct."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    (found,) = _faults()

    assert found.startswith(fault)


@pytest.mark.parametrize(
    "variables",
    [
        {"API_HOST": "localhost", "ISSUER_HOST": "::1"},
        {"API_HOST": "0.0.0.0"},
        {"JWT_ISSUER": "https://id.example", "JWT_ALGORITHMS": "HS256", "JWT_SECRET": "s" * 32, **TOKENS},
        {"JWT_ISSUER": "i", "JWT_ALGORITHMS": " HS256 ", "JWT_SECRET": "s" * 32, **TOKENS},
        {"JWT_JWKS_URL": "http://[::1]:9/keys"},
        {"WEBHOOK_URL": "https://user:password@receiver:8443/path?a=b", "WEBHOOK_SECRET": SECRET},
        {"JWT_ISSUER": "i", "JWT_ALGORITHMS": "RS256,EdDSA", "JWT_JWKS_URL": "https://id.example/keys", **TOKENS},
        {"WEBHOOK_URL": "https://receiver", "WEBHOOK_SECRET": SECRET},
        {"TOPIC_REPLICATION": "3", "TOPIC_MIN_INSYNC_REPLICAS": "2"},
        {"REQUEST_ID_KEYS": f"{'n' * 16}, {'o' * 16}"},
        {"API_PORT": ""},
        {"ROOT_PATH": "/shop/coupons-api_1.0", "KEEP_ALIVE_SECONDS": "620"},
        {"WEBHOOK_URL": "https://receiver", "WEBHOOK_SECRET": SECRET + "AAA"},
        {"RATE_LIMIT_USER": "0", "RATE_LIMIT_ADDRESS": "1000000/1", "RATE_LIMIT_ALL": "1/86400"},
        {"TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1,fd00::/8", "TRUSTED_PROXY_HEADER": "forwarded"},
        {"MIGRATE_DATABASE_URL": "postgresql://owner@127.0.0.1:5432/coupons"},
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318/otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "1",
        },
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
def test_consistent_settings_are_accepted(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings near the contradictions above are valid."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    config.load()


def test_traces_without_their_packages_are_refused_and_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are optional: a process without them says how they are installed."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector")
    monkeypatch.setattr("service.config.tracing._NEEDED_MODULES", ("opentelemetry_absent.sdk",))

    (found,) = _faults()

    assert found.startswith("OTEL_EXPORTER_OTLP_ENDPOINT: needs the extra `tracing`, which is not installed: ")


def test_a_process_without_request_ids_needs_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beat, Flower and the migration: their settings hold a key that verifies no request id, and differs each time."""
    monkeypatch.delenv("REQUEST_ID_KEYS")

    keys = {config.load_without_keys().mac_keys for _ in range(2)}

    assert len(keys) == 2
    assert [fault.partition(":")[0] for fault in _faults()] == ["REQUEST_ID_KEYS"]


def test_settings_without_keys_never_hold_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that loads them cannot sign, also where the variable is set; other faults are reported."""
    assert config.load_without_keys().mac_keys != (b"k" * 16,)

    monkeypatch.setenv("TOPIC_PARTITIONS", "0")
    with pytest.raises(Misconfigured, match="TOPIC_PARTITIONS"):
        config.load_without_keys()


def test_no_secret_is_ever_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a fault nor printed settings contain a key, not even an invalid one."""
    settings = Settings(**{name.lower(): value for name, value in GOOD.items()}, webhook_secret=SECRET)  # type: ignore[arg-type]
    monkeypatch.setenv("REQUEST_ID_KEYS", "too-short")
    monkeypatch.setenv("WEBHOOK_URL", "https://receiver")
    monkeypatch.setenv("WEBHOOK_SECRET", "not-a-secret")
    monkeypatch.setenv("DATABASE_URL", "mysql://user:pa55w0rd@host/db")
    monkeypatch.setenv("JWT_JWKS_URL", "https://user:pa55w0rd@id.example/keys")
    printed = "\n".join([*_faults(), repr(settings), str(settings)])

    for secret in ("too-short", "not-a-secret", "pa55w0rd", GOOD["REQUEST_ID_KEYS"], SECRET):
        assert secret not in printed


#: every setting that is a URL: with what makes it needed, and its scheme
_URLS: dict[str, tuple[dict[str, str], str]] = {
    "DATABASE_URL": ({}, "postgresql"),
    "MIGRATE_DATABASE_URL": ({}, "postgresql"),
    "REDIS_URL": ({}, "redis"),
    "CELERY_BROKER_URL": ({}, "redis"),
    "WEBHOOK_URL": ({"WEBHOOK_SECRET": SECRET}, "https"),
    "JWT_JWKS_URL": ({}, "https"),
    "KAFKA_OAUTH_TOKEN_URL": (
        {
            "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
            "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA_OAUTH_CLIENT_ID": "coupons",
            "KAFKA_OAUTH_CLIENT_SECRET": "its-secret",
        },
        "https",
    ),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ({}, "https"),
}


def test_the_list_of_urls_is_complete() -> None:
    assert {field.upper() for field in Settings.model_fields if re.search("_(url|endpoint)$", field)} == set(_URLS)


_NOT_ENCODED = pytest.mark.parametrize(
    "user_info",
    ["us3r:p@55w0rd", "us3r:p/55w0rd", "us3r:55#w0rd", "us3r:55?w0rd", "us3r:55/w0rd", ":[55w0rd", "us3r@:"],
)


@pytest.mark.parametrize("name", _URLS)
@_NOT_ENCODED
def test_a_password_that_is_not_encoded_is_a_fault_and_not_taken_for_a_host(
    name: str, user_info: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error about that host would print the end of the password, or the user name, in the log."""
    needed, scheme = _URLS[name]
    for other, value in needed.items():
        monkeypatch.setenv(other, value)
    monkeypatch.setenv(name, f"{scheme}://{user_info}@127.0.0.1:1/1")

    (fault,) = _faults()

    assert fault.startswith(f"{name}: ")
    assert "must be percent-encoded" in fault
    assert not re.search("us3r|55|w0rd", fault)


@pytest.mark.parametrize("name", _URLS)
def test_a_scheme_that_clients_read_differently_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some know schemes in lower case only, and would blame something else."""
    needed, scheme = _URLS[name]
    for other, value in needed.items():
        monkeypatch.setenv(other, value)
    monkeypatch.setenv(name, f"{scheme.capitalize()}://127.0.0.1:1/1")

    (fault,) = _faults()

    assert fault.startswith(f"{name}: must ")
    assert fault.endswith("in lower case")


@pytest.mark.parametrize("name", [name for name, (_, scheme) in _URLS.items() if scheme != "https"])
@pytest.mark.parametrize(
    "query",
    [
        *("password=p55+w0rd", "password=p55&w0rd", "password=p55&w0rd=1", "password=p55&w0rd=1&w0rd=2"),
        *("password=p55&", "password=p55&=w0rd", "password=p55#w0rd", "password=", "password=p55&password=w0rd"),
    ],
)
def test_a_password_in_an_option_is_neither_changed_nor_repeated(
    name: str, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `+` would be read as a space, and what follows an `&` or `#` would be left out or be an option."""
    _, scheme = _URLS[name]
    sentinel = f"{scheme}+sentinel://one,two/1?master_name=a&sentinel_{query}"
    for url in [f"{scheme}://user@127.0.0.1:1/1?{query}", *([sentinel] if scheme == "redis" else [])]:
        monkeypatch.setenv(name, url)

        (fault,) = _faults()

        assert fault.startswith(f"{name}: has ")
        assert not re.search("55|w0rd", fault)


@pytest.mark.parametrize("name", ["REDIS_URL", "CELERY_BROKER_URL"])
def test_files_of_redis_are_checked(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault names the option and the file, for the gate and for Celery's broker."""
    authority = Authority.load_or_create(tmp_path, "ca")
    mine, other = authority.issue("mine"), authority.issue("other")
    ca, certificate, key = authority.certificate_file, mine.certificate_file, mine.key_file
    encrypted, text = tmp_path / "encrypted", tmp_path / "text"
    encrypted.write_bytes(
        serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"pa55"),
        )
    )
    text.write_text("text")

    def fault(**options: object) -> str:
        query = "&".join(f"{option}={value}" for option, value in options.items())
        monkeypatch.setenv(name, f"rediss://127.0.0.1/2?{query}")
        (found,) = _faults()
        return found.removeprefix(f"{name}: ")

    assert fault(ssl_ca_certs="/absent") == "ssl_ca_certs cannot be read: No such file or directory: /absent"
    assert fault(ssl_ca_certs=text) == f"ssl_ca_certs has no certificate in PEM format: {text}"
    assert fault(ssl_ca_certs=tmp_path).startswith(f"ssl_ca_certs is a directory: {tmp_path}")
    assert fault(ssl_certfile="/absent", ssl_keyfile=key).startswith("ssl_certfile cannot be read: No such file")
    assert fault(ssl_certfile=certificate, ssl_keyfile="/absent").startswith("ssl_keyfile cannot be read: No such file")
    assert fault(ssl_keyfile=key) == "ssl_keyfile needs ssl_certfile, the certificate of the key"
    unusable = f"ssl_certfile has no certificate of the key, or the key's password is wrong: {certificate}"
    assert fault(ssl_certfile=certificate) == unusable
    assert fault(ssl_certfile=certificate, ssl_keyfile=other.key_file) == unusable
    assert fault(ssl_certfile=certificate, ssl_keyfile=encrypted) == unusable
    assert fault(ssl_certfile=certificate, ssl_keyfile=encrypted, ssl_password="w0rd") == unusable
    monkeypatch.setenv(
        name,
        f"rediss://127.0.0.1/2?ssl_ca_certs={ca}&ssl_certfile={certificate}&ssl_keyfile={encrypted}&ssl_password=pa55",
    )
    config.load()
    monkeypatch.setenv(name, f"rediss://127.0.0.1/2?ssl_certfile={mine.both_file}")
    config.load()


@pytest.mark.parametrize("name", ["REDIS_URL", "CELERY_BROKER_URL"])
@_NOT_ENCODED
def test_a_password_before_several_sentinels_is_not_taken_for_one_of_them(
    name: str, user_info: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"redis+sentinel://{user_info}@127.0.0.1:1,127.0.0.1:2/1?master_name=shop")

    (fault,) = _faults()

    assert fault.startswith(f"{name}: ")
    assert "must be percent-encoded" in fault
    assert not re.search("us3r|55|w0rd", fault)


@pytest.mark.parametrize(
    "variables",
    [
        {"DATABASE_URL": "postgresql://us3r:p%4055%2Fw0rd@127.0.0.1:5432/coupons?sslmode=disable"},
        {"DATABASE_URL": "postgresql:///coupons?host=/run/postgresql"},
        {"DATABASE_URL": "postgresql://user@/coupons?host=one:5432&host=two:5433&target_session_attrs=any"},
        {"DATABASE_URL": "postgresql://us3r:p%2Cw@one:5432,[::1]:5433,two/coupons?target_session_attrs=primary"},
        {"DATABASE_URL": "postgresql://user@%2Frun%2Fpostgresql/coupons"},
        {
            "DATABASE_URL": "postgresql://user@host/coupons?sslmode=verify-full&sslrootcert=/etc/ca.pem&connect_timeout=9"
        },
        {"DATABASE_URL": "postgresql://user@host/coupons?options=-csearch_path%3Dshop,public%20--work-mem%3D8MB"},
        {"REDIS_URL": "redis://us3r:p%4055%2Fw0rd@[::1]:6379/0?socket_timeout=2"},
        {
            "REDIS_URL": "rediss://host?client_name=a&health_check_interval=0&max_connections=9&socket_keepalive=True"
            "&socket_connect_timeout=0.5&ssl_cert_reqs=required&ssl_check_hostname=no&ssl_min_version=772"
            "&ssl_ciphers=ECDHE%2BAESGCM&ssl_exclude_verify_flags=VERIFY_X509_STRICT,VERIFY_X509_PARTIAL_CHAIN"
        },
        {
            "REDIS_URL": "rediss+sentinel://us3r:p%4055%2Fw0rd@one:26379,[::1],two/0?master_name=shop"
            f"&sentinel_username=me&sentinel_password=p%4055%2B%26%23&ssl_ca_certs={certifi.where()}"
        },
        {
            "REDIS_URL": "redis+sentinel://one,two/0?master_name=gate",
            "CELERY_BROKER_URL": "redis+sentinel://one,two/0?master_name=broker",
        },
    ],
)
def test_options_that_are_supported_are_accepted(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    config.load()


@pytest.mark.parametrize(
    "url",
    [
        "redis://host:1/1",
        "rediss://:secret@host:1/1",
        "redis+sentinel://host:1/1?master_name=shop",
        "confluentkafka://host:9092",
    ],
)
def test_a_supported_broker_is_accepted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's broker is Redis or Kafka."""
    monkeypatch.setenv("CELERY_BROKER_URL", url)

    assert config.load().celery_over_kafka is url.startswith("confluentkafka")


@pytest.mark.parametrize(
    "url",
    [
        "amqp://host:5672//",
        "memory://",
        "kafka://host:9092",
        "confluentkafka://",
        "confluentkafka://host",
        "confluentkafka://user:pa55w0rd@host:9092",
        "confluentkafka://host:9092/path",
        "confluentkafka://one:9092,two:9092",
        "127.0.0.1:6379",
        "redis",
        "Redis://host/1",
        "Redis+Sentinel://host/1?master_name=a",
        "ConfluentKafka://host:9092",
    ],
)
def test_an_unsupported_broker_is_refused_with_a_list_of_the_supported_ones(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of a URL that the transport would ignore are refused, too."""
    monkeypatch.setenv("CELERY_BROKER_URL", url)

    (fault,) = _faults()

    assert fault.startswith(
        "CELERY_BROKER_URL: must be confluentkafka://host:port, or begin with redis:// or rediss://"
    )
    assert fault.endswith(" or redis+sentinel:// or rediss+sentinel://, in lower case")


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "postgres", "postgresql+asyncpg"])
def test_an_accepted_database_url_can_be_used(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL scheme that the driver does not support is refused at start."""
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://user@127.0.0.1/coupons")
    try:
        url = config.load().database_url
    except Misconfigured:
        return

    assert make_url(url).get_dialect().driver == "psycopg"


def test_a_rate_limit_of_0_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit per address is off by default; an empty variable means the default, as it does everywhere."""
    assert config.load().rate_limits == {LimitScope.USER: RateLimit(10, 2), LimitScope.ALL: RateLimit(100_000, 1)}

    monkeypatch.setenv("RATE_LIMIT_USER", "0")
    monkeypatch.setenv("RATE_LIMIT_ALL", "")
    monkeypatch.setenv("RATE_LIMIT_ADDRESS", "200/10")

    assert config.load().rate_limits == {LimitScope.ADDRESS: RateLimit(200, 10), LimitScope.ALL: RateLimit(100_000, 1)}


@pytest.mark.parametrize("name", ["CRASH_POINTS", "CLOCK_OFFSET_MS"])
def test_settings_for_tests_require_fault_injection(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One stray variable cannot crash a real deployment or shift its clock."""
    monkeypatch.setenv(name, "1")

    assert [fault.partition(":")[0] for fault in _faults()] == [name]

    monkeypatch.setenv("FAULT_INJECTION", "true")
    config.load()


def test_origins_are_those_that_browsers_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port only if it is not that of the scheme, a host in lower case, an address in brackets."""
    assert config.load().allowed_origins == ()
    monkeypatch.setenv(
        "CORS_ORIGINS", " https://shop.example ,http://localhost:3000,https://xn--9d0b.example:8443,http://[::1],"
    )

    assert config.load().allowed_origins == (
        "https://shop.example",
        "http://localhost:3000",
        "https://xn--9d0b.example:8443",
        "http://[::1]",
    )


def test_every_origin_that_no_browser_sends_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example, b, http://c.example:80")

    (fault,) = _faults()

    assert re.findall("[;:] ([^ ]+) (?:is not|has)", fault) == ["b", "http://c.example:80"]


_SECRETS_IN_FILES = {
    "REQUEST_ID_KEYS": "f" * 16,
    "DATABASE_URL": "postgresql://user:from-a-file@127.0.0.1/coupons",
    "MIGRATE_DATABASE_URL": "postgresql://owner:from-a-file@127.0.0.1/coupons",
    "REDIS_URL": "redis://:from-a-file@127.0.0.1/0",
    "CELERY_BROKER_URL": "redis://:from-a-file@127.0.0.1/1",
    "WEBHOOK_URL": "https://receiver/from-a-file",
    "WEBHOOK_SECRET": "whsec_" + "F" * 32,
    "JWT_SECRET": "f" * 32,
    "JWT_JWKS_URL": "https://id.example/from-a-file",
    "TICKET_KEYS": "f" * 16,
}


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_every_secret_and_every_url_can_be_in_a_file(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Docker and Kubernetes mount them; an editor adds a line break."""
    for name, value in _SECRETS_IN_FILES.items():
        monkeypatch.delenv(name, raising=False)
        file = tmp_path / name
        file.write_bytes(f"{value}{ending}".encode())
        monkeypatch.setenv(f"{name}_FILE", str(file))

    settings = config.load()

    read = {name: getattr(settings, name.lower()) for name in _SECRETS_IN_FILES}
    assert {n: v.get_secret_value() if isinstance(v, SecretStr) else v for n, v in read.items()} == _SECRETS_IN_FILES


def test_no_secret_and_no_url_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are added later."""
    (tmp_path / "any").write_text("any")
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv(f"{name.upper()}_FILE", str(tmp_path / "any"))
    secrets = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}

    assert SecretFiles(Settings)().keys() == secrets | {name for name in Settings.model_fields if name.endswith("_url")}


def test_faults_of_files_are_reported_at_once_with_their_paths_and_never_their_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the faults of other settings."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xffpa55w0rd")
    (tmp_path / "short").write_text("pa55w0rd")
    (tmp_path / "url").write_text("postgresql://user:pa55w0rd@host:x/db")
    for name, file in {
        "REDIS_URL": "absent",
        "CELERY_BROKER_URL": "empty",
        "REQUEST_ID_KEYS": "short",
        "DATABASE_URL": "url",
        "JWT_SECRET": "binary",
        "MIGRATE_DATABASE_URL": ".",
    }.items():
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / file))
    monkeypatch.setenv("TICKET_KEYS", "t" * 16)
    monkeypatch.setenv("TICKET_KEYS_FILE", str(tmp_path / "short"))
    monkeypatch.setenv("API_PORT", "http")

    faults = {fault.partition(": ")[0]: fault.partition(": ")[2] for fault in _faults()}

    assert "pa55w0rd" not in str(faults)
    assert faults.keys() == {
        *("REDIS_URL", "CELERY_BROKER_URL", "REQUEST_ID_KEYS", "DATABASE_URL", "JWT_SECRET", "MIGRATE_DATABASE_URL"),
        *("TICKET_KEYS", "API_PORT"),
    }
    assert faults["REDIS_URL"] == (
        f"REDIS_URL_FILE={tmp_path}/absent: the file cannot be read: No such file or directory"
    )
    assert faults["CELERY_BROKER_URL"] == f"CELERY_BROKER_URL_FILE={tmp_path}/empty: the file is empty"
    assert faults["JWT_SECRET"] == f"JWT_SECRET_FILE={tmp_path}/binary: the file is not text in UTF-8"
    assert "Is a directory" in faults["MIGRATE_DATABASE_URL"]
    assert faults["TICKET_KEYS"] == "is set, and TICKET_KEYS_FILE as well: unset one of them"


def test_a_file_variable_that_is_empty_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every variable does."""
    monkeypatch.setenv("DATABASE_URL_FILE", "")

    assert config.load().database_url == GOOD["DATABASE_URL"]


def test_a_setting_that_is_no_secret_is_not_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "port").write_text("9000")
    monkeypatch.setenv("API_PORT_FILE", str(tmp_path / "port"))

    assert config.load().api_port == 8000


def test_a_process_without_request_ids_reads_no_file_with_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beat and Flower start where the file of the keys is not mounted."""
    monkeypatch.delenv("REQUEST_ID_KEYS")
    monkeypatch.setenv("REQUEST_ID_KEYS_FILE", "/absent")

    config.load_without_keys()


@pytest.mark.parametrize(
    "secret", ["-----BEGIN PRIVATE KEY-----\nMIIE", "hunter2-hunter2", "postgresql://u:hunter2@h/d"]
)
@pytest.mark.parametrize("name", ["KAFKA_SSL_KEY", "DATABASE_URL_FILE", "REQUEST_ID_KEYS_FILE"])
def test_a_secret_in_place_of_its_path_is_not_repeated(name: str, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name.removesuffix("_FILE"), raising=False)
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "ssl")
    monkeypatch.setenv(name, secret)

    assert "hunter2" not in (found := "\n".join(_faults()))
    assert "MIIE" not in found
    assert name.removesuffix("_FILE") in found
