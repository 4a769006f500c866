"""All settings: read from the environment once, checked at start, with every fault reported at once."""

import ipaddress
import re
import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.connection_urls import check_http_url, check_postgresql_url, check_redis_url
from service.domain.errors import Misconfigured
from service.domain.rate_limit import MICROSECONDS, LimitScope, RateLimit, RateLimits

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
MIN_SECRET_BYTES = 16
#: RFC 7518, section 3.2: a key of HS256 is at least as long as its hash
MIN_JWT_BYTES = 32
#: as `Host` names them, without the port
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_RATE_LIMIT_PATTERN = re.compile(r"[1-9][0-9]{0,9}/[1-9][0-9]{0,9}", re.ASCII)
_MAX_LIMIT_SECONDS = 86_400
WEBHOOK_SECRET_PATTERN = re.compile(r"whsec_[A-Za-z0-9+/]{32,}={0,2}")
KAFKA_BROKER_PATTERN = re.compile(r"confluentkafka://[^/?#@,;:]+:[0-9]{1,5}")


class Settings(BaseSettings):
    """The settings of a process; the environment variable of a field is its name in upper case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    kafka_bootstrap_servers: str = Field(min_length=1, description="Kafka brokers: host:port, separated by commas")
    database_url: str = Field(
        description="PostgreSQL: postgresql://user@host:port/database; only a server that accepts writes is used,"
        " unless the URL sets target_session_attrs"
    )
    migrate_database_url: str = Field(
        "",
        description="PostgreSQL for `coupons migrate`, as the role that owns the schema; it grants the role of"
        " DATABASE_URL what the service needs; empty: DATABASE_URL",
    )
    redis_url: str = Field(description="Redis or Valkey for the gate: redis://host:port/database")
    celery_broker_url: str = Field(
        min_length=1,
        description="Celery's broker: redis://host:port/database with another database than the gate's,"
        " or confluentkafka://host:port",
    )
    request_id_keys: SecretStr = Field(
        description="keys of the MAC in request ids, separated by commas: the first one signs, all of them verify;"
        " docs/key-rotation.md says how to change them"
    )

    foreign_records: Literal["issue", "refuse"] = Field(
        "issue",
        description="issue: records of other producers are requests; refuse: only records with a request id of this"
        " service are, and the others are refused with the code `foreign`",
    )

    topic_partitions: int = Field(6, ge=1, le=1000, description="partitions of ISSUE_COUPON and ISSUE_COUPON.dlt")
    topic_replication: int = Field(1, ge=1, le=9, description="replicas of each partition")
    topic_min_insync_replicas: int = Field(
        1, ge=1, le=9, description="replicas that must have a record before it is acknowledged"
    )

    auth: Literal["on", "off"] = Field(
        "on",
        description="on: callers need a token, a ticket or an API key; off: everyone may do everything, on loopback"
        " addresses only",
    )
    allowed_hosts: str = Field(
        "",
        description="names under which the API is reached besides those of loopback, separated by commas; empty: any"
        " with AUTH=on, none with AUTH=off",
    )
    public_docs: bool = Field(True, description="show /docs and /openapi.json to everyone, not to operators only")
    jwt_issuer: str = Field("", description="`iss` of users' tokens; empty: no tokens are accepted")
    jwt_audience: str = Field("", validate_default=True, description="`aud` that users' tokens must contain")
    jwt_algorithms: str = Field(
        "", validate_default=True, description="algorithms of users' tokens: HS256, or some of RS256,ES256,EdDSA"
    )
    jwt_secret: SecretStr = Field(
        SecretStr(""), validate_default=True, description="the key of HS256, at least 32 bytes"
    )
    jwt_jwks_url: str = Field(
        "", validate_default=True, description="https URL of the public keys (a JSON Web Key Set)"
    )
    jwt_user_claim: str = Field("sub", min_length=1, description="claim that holds the user's id, an integer as text")
    jwt_leeway_seconds: int = Field(
        5, ge=0, le=300, description="difference between the clocks of the API and of those that issue tokens"
    )
    jwt_require_nbf: bool = Field(
        True, description="refuse tokens without `nbf`; false for issuers that do not send it: with it, it is checked"
    )
    ticket_keys: SecretStr = Field(
        SecretStr(""),
        validate_default=True,
        description="keys of the MAC in tickets, separated by commas: the first one signs, all of them verify",
    )
    ticket_seconds: int = Field(3600, ge=10, le=86_400, description="longest life of a ticket")

    api_host: str = Field("127.0.0.1", description="address the API binds to")
    api_port: int = Field(8000, ge=1, le=65535, description="port the API binds to")
    api_processes: int = Field(1, ge=1, le=64, description="API processes that share the port")
    issuer_host: str = Field("127.0.0.1", description="address of the issuer's /readyz and /metrics")
    issuer_port: int = Field(8001, ge=1, le=65535, description="port of the issuer's /readyz and /metrics")

    rate_limit_user: str = Field(
        "10/2",
        description="requests for coupons per user: how many at once, and the seconds in which a used-up limit is"
        " refilled; 10/2: ten at once, then five a second; 0: no limit",
    )
    rate_limit_address: str = Field(
        "0", description="the same per client address (IPv6: per /64 network), for example 200/10; 0: no limit"
    )
    rate_limit_all: str = Field(
        "100000/1", description="the same for all callers of all API processes together; 0: no limit"
    )
    trusted_proxies: str = Field(
        "",
        description="networks of the reverse proxies whose header names the client, separated by commas:"
        " 10.0.0.0/8,fd00::/8; empty: the client is the peer of the connection",
    )
    trusted_proxy_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for", description="the header that the trusted proxies set; the other one is ignored"
    )

    issuer_instance: str = Field(
        "", description="static member id in the consumer group, unique per issuer; empty: none"
    )
    poll_records: int = Field(
        4000, ge=1, le=100_000, description="most records that the issuer decides in one batch (transaction)"
    )
    max_undecided: int = Field(
        1_000_000,
        ge=0,
        le=1_000_000_000,
        description="undecided records above which a request gets 503 and no seat; 0: no ceiling",
    )
    gate_keep_seconds: int = Field(
        86_400,
        ge=60,
        le=31_536_000,
        description="seconds for which the gate keeps the users of a coupon that is closed or sold out",
    )
    produce_timeout_ms: int = Field(
        5000, ge=100, le=60_000, description="milliseconds in which the broker must acknowledge a record"
    )

    webhook_url: str = Field("", description="URL that receives notices; empty: no notices")
    webhook_secret: SecretStr = Field(
        SecretStr(""), validate_default=True, description="key that signs notices: whsec_ and base64"
    )

    dead_letters_per_minute: int = Field(
        10, ge=1, le=1_000_000, description="dead letters in one minute above which an alert is raised"
    )
    undecided_alert_seconds: int = Field(
        10, ge=5, le=86_400, description="age of a partition's oldest undecided record above which an alert is raised"
    )

    fault_injection: bool = Field(False, description="apply the Fault header of requests: demos and tests only")
    crash_points: str = Field("", description="folder whose files arm crash points and shift the clock: tests only")
    clock_offset_ms: int = Field(
        0, description="milliseconds by which the clock of this process is shifted: tests only"
    )
    log_format: Literal["json", "console"] = Field(
        "console", description="json: one object a line; console: readable text"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, url: str) -> str:
        check_postgresql_url(url)
        return url

    @field_validator("migrate_database_url")
    @classmethod
    def _can_grant(cls, url: str, info: ValidationInfo) -> str:
        if not url:
            return url
        if "database_url" in info.data and not urlsplit(info.data["database_url"]).username:
            raise ValueError("needs the name of a role in DATABASE_URL, to grant it what the service needs")
        return cls._is_postgresql(url)

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        check_redis_url(url)
        return url

    @field_validator("celery_broker_url")
    @classmethod
    def _is_supported_broker(cls, url: str, info: ValidationInfo) -> str:
        if KAFKA_BROKER_PATTERN.fullmatch(url):
            return url
        if not url.startswith(("redis://", "rediss://")):
            raise ValueError("must be redis://host:port/1, rediss://host:port/1 or confluentkafka://host:port")
        check_redis_url(url)
        if _redis_database(url) == _redis_database(info.data.get("redis_url", "")):
            raise ValueError(
                "must not name the database of REDIS_URL, because emptying one would empty the other:"
                " use another database number"
            )
        return url

    @field_validator("request_id_keys")
    @classmethod
    def _has_long_keys(cls, keys: SecretStr) -> SecretStr:
        if any(len(key) < MIN_SECRET_BYTES for key in _split_keys(keys)):
            raise ValueError(f"each key must have at least {MIN_SECRET_BYTES} bytes")
        return keys

    @field_validator("ticket_keys")
    @classmethod
    def _has_long_ticket_keys(cls, keys: SecretStr) -> SecretStr:
        return cls._has_long_keys(keys) if keys.get_secret_value() else keys

    @field_validator("jwt_algorithms")
    @classmethod
    def _are_compatible(cls, algorithms: str) -> str:
        """A public key must never be taken for the secret of HS256: so they are not mixed."""
        chosen = set(_split_list(algorithms))
        if not (chosen <= {"HS256"} or chosen <= {"RS256", "ES256", "EdDSA"}):
            raise ValueError("must be HS256, or some of RS256, ES256 and EdDSA")
        return ",".join(sorted(chosen))

    @field_validator("jwt_jwks_url")
    @classmethod
    def _is_safe_url(cls, url: str) -> str:
        if not url:
            return url
        parts = check_http_url(url)
        if parts.username is not None:
            raise ValueError("must not have a user name or a password")
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ValueError("must begin with https://")
        return url

    @field_validator("jwt_audience", "jwt_algorithms", "jwt_secret", "jwt_jwks_url", "ticket_keys")
    @classmethod
    def _is_set_if_needed(cls, value: str | SecretStr, info: ValidationInfo) -> str | SecretStr:
        """Tokens need their issuer, their audience and a key to verify them; who has a token may want a ticket."""
        algorithms = info.data.get("jwt_algorithms", "")
        needed = {
            "jwt_secret": algorithms == "HS256",
            "jwt_jwks_url": bool(algorithms) and algorithms != "HS256",
        }
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if info.data.get("jwt_issuer") and needed.get(str(info.field_name), True) and not text:
            raise ValueError("is needed by JWT_ISSUER")
        if info.field_name == "jwt_secret" and text and len(text.encode()) < MIN_JWT_BYTES:
            raise ValueError(f"must have at least {MIN_JWT_BYTES} bytes")
        return value

    @field_validator("topic_min_insync_replicas")
    @classmethod
    def _is_at_most_replication(cls, replicas: int, info: ValidationInfo) -> int:
        if replicas > info.data.get("topic_replication", replicas):
            raise ValueError("must not exceed TOPIC_REPLICATION: no record could be acknowledged")
        return replicas

    @field_validator("api_host", "issuer_host")
    @classmethod
    def _stays_on_loopback(cls, host: str, info: ValidationInfo) -> str:
        if info.data.get("auth") == "off" and not is_loopback(host):
            raise ValueError(f"{host} is not a loopback address and AUTH is off: set AUTH=on")
        return host

    @field_validator("issuer_port")
    @classmethod
    def _differs_from_api_port(cls, port: int, info: ValidationInfo) -> int:
        if (info.data.get("issuer_host"), port) == (info.data.get("api_host"), info.data.get("api_port")):
            raise ValueError("must differ from API_PORT: both would listen on the same address")
        return port

    @field_validator("rate_limit_user", "rate_limit_address", "rate_limit_all")
    @classmethod
    def _is_rate_limit(cls, text: str) -> str:
        _parse_rate_limit(text)
        return text

    @field_validator("trusted_proxies")
    @classmethod
    def _has_networks(cls, text: str) -> str:
        _parse_networks(text)
        return text

    @field_validator("webhook_url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if url:
            check_http_url(url)
        return url

    @field_validator("webhook_secret")
    @classmethod
    def _has_signing_key(cls, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        if info.data.get("webhook_url") and not WEBHOOK_SECRET_PATTERN.fullmatch(secret.get_secret_value()):
            raise ValueError(
                "is required by WEBHOOK_URL to sign notices: whsec_ and at least 24 random bytes in base64"
            )
        return secret

    @field_validator("crash_points", "clock_offset_ms")
    @classmethod
    def _needs_fault_injection(cls, value: str | int, info: ValidationInfo) -> str | int:
        if value and not info.data.get("fault_injection"):
            raise ValueError("is for tests only: set FAULT_INJECTION=true with it")
        return value

    @property
    def celery_over_kafka(self) -> bool:
        """Whether Celery's broker is Kafka and not Redis."""
        return bool(KAFKA_BROKER_PATTERN.fullmatch(self.celery_broker_url))

    @cached_property
    def host_names(self) -> frozenset[str] | None:
        """The names under which the API may be reached; None: any. Those of loopback are nobody else's."""
        names = frozenset(_split_list(self.allowed_hosts.lower()))
        return names | LOOPBACK_NAMES if names or self.auth == "off" else None

    @property
    def token_algorithms(self) -> tuple[str, ...]:
        """The algorithms of users' tokens."""
        return _split_list(self.jwt_algorithms)

    @property
    def ticket_mac_keys(self) -> tuple[bytes, ...]:
        """The keys of the MAC in tickets, the signing key first."""
        return _split_keys(self.ticket_keys) if self.ticket_keys.get_secret_value() else ()

    @property
    def rate_limits(self) -> RateLimits:
        """The limits of requests for coupons that are on."""
        texts = {
            LimitScope.USER: self.rate_limit_user,
            LimitScope.ADDRESS: self.rate_limit_address,
            LimitScope.ALL: self.rate_limit_all,
        }
        return {scope: limit for scope, text in texts.items() if (limit := _parse_rate_limit(text))}

    @property
    def proxy_networks(self) -> tuple[IPNetwork, ...]:
        """The networks of the trusted proxies."""
        return _parse_networks(self.trusted_proxies)

    @property
    def mac_keys(self) -> tuple[bytes, ...]:
        """The keys of the MAC in request ids, the signing key first."""
        return _split_keys(self.request_id_keys)


def load() -> Settings:
    """Read the environment; raise Misconfigured with every setting that is absent, malformed or contradictory."""
    return _load({})


def load_without_keys() -> Settings:
    """Read the environment of a process that neither makes nor verifies request ids; raise Misconfigured.

    It need not have REQUEST_ID_KEYS. The settings hold a random key instead, with which no request id verifies.
    """
    return _load({"request_id_keys": SecretStr(secrets.token_hex(MIN_SECRET_BYTES))})


def _load(given: Mapping[str, Any]) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as error:
        faults = [
            ": ".join([*(str(part).upper() for part in fault["loc"]), fault["msg"].removeprefix("Value error, ")])
            for fault in error.errors()
        ]
        raise Misconfigured(faults) from None


def _split_keys(keys: SecretStr) -> tuple[bytes, ...]:
    return tuple(key.strip().encode() for key in keys.get_secret_value().split(","))


def _split_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _parse_rate_limit(text: str) -> RateLimit | None:
    """Return the limit, or None for 0; raise ValueError."""
    if text == "0":
        return None
    if not _RATE_LIMIT_PATTERN.fullmatch(text):
        raise ValueError("must be 0, or requests/seconds such as 10/2, both whole numbers from 1")
    limit = RateLimit(*map(int, text.split("/")))
    if limit.seconds > _MAX_LIMIT_SECONDS or limit.interval_us == 0:
        raise ValueError(f"must not exceed {_MAX_LIMIT_SECONDS} seconds or {MICROSECONDS} requests a second")
    return limit


def _parse_networks(text: str) -> tuple[IPNetwork, ...]:
    """Return the networks, which are separated by commas; raise ValueError."""
    try:
        return tuple(map(ipaddress.ip_network, _split_list(text)))
    except ValueError as error:
        raise ValueError(f"must be networks such as 10.0.0.0/8, separated by commas: {error}") from None


def _redis_database(url: str) -> tuple[str, str]:
    """Return host and database number of a Redis URL; a URL without a number means database 0."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2], parts.path.strip("/") or "0"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address to which a server binds."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
