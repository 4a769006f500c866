"""Clients on secured servers: each way to authenticate, what a failed connection says, and rights that are missing."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jwt
import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError
from redis import AuthenticationError

from service.config import Settings
from service.domain.errors import NotPermitted, Unavailable
from service.domain.finding import Part
from service.gate.client import build_client
from service.resources import open_doctor
from service.stream import topics
from service.stream.topics import Group, Topic
from service.usecases import doctor as doctor_checks
from stack import ports
from stack.certificates import Authority
from stack.local import LocalStack
from stack.secured import (
    BROKER,
    BROKER_TLS_PORT,
    GATE,
    GATE_TLS_PORT,
    KAFKA_ACLS,
    MUTUAL_PORT,
    OAUTH_PORT,
    PRINCIPALS,
    REDIS_ACLS,
    operation_name,
    read_kafka_acls,
)
from stack.server_env import LOOPBACK
from stack.servers import valkey
from stack.settings import ISOLATED, KAFKA_SECURITY
from stack.startup import SERVERS
from testkit.key_server import KeyServer
from testkit.token_server import TokenServer
from tests.fixtures.parts import REQUEST_ID_KEYS
from tests.fixtures.redis_rights import administrator, read_rules
from tests.own_servers_page import PAGE, example, run
from tests.waiting import eventually
from workers.queues import Queue

_NO_SECURITY = dict.fromkeys((name.lower() for name in KAFKA_SECURITY if name != "KAFKA_SSL_VERIFY_HOSTNAME"), "")


@pytest.fixture(scope="module")
def key_server() -> Iterator[KeyServer]:
    with KeyServer() as server:
        yield server


@pytest.fixture(scope="module")
def provider_ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA of the OpenID provider, which is not that of Kafka."""
    return Authority.load_or_create(tmp_path_factory.mktemp("provider"), "the CA of the provider")


@pytest.fixture(scope="module")
def token_server(key_server: KeyServer, provider_ca: Authority) -> Iterator[TokenServer]:
    """An OpenID provider with TLS whose client `operator` gets tokens for Kafka."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key_server.add("1", key)

    def sign(client_id: str) -> str:
        now = int(time.time())
        claims = {"sub": client_id, "aud": "kafka", "iat": now, "exp": now + 300}
        return jwt.encode(claims, key, "RS256", headers={"kid": "1"})

    with TokenServer({"operator": "the-clients-secret"}, sign, provider_ca.issue("provider").both_file) as server:
        yield server


@pytest.fixture(scope="module")
def secured(
    tmp_path_factory: pytest.TempPathFactory, key_server: KeyServer, token_server: TokenServer
) -> Iterator[LocalStack]:
    """Secured servers, without topics and without a schema."""
    del token_server  # it has added its key
    variables = {"SECURED": "on", "KAFKA_OAUTH_KEYS_URL": key_server.url, "REQUEST_ID_KEYS": REQUEST_ID_KEYS}
    with LocalStack(tmp_path_factory.mktemp("secured"), SERVERS, ISOLATED | variables) as stack:
        yield stack


@pytest.fixture(scope="module")
def migrated(secured: LocalStack) -> LocalStack:
    """The same with topics and a schema."""
    ended = _run(_environment(secured, "migrate"), "migrate")
    assert ended.returncode == 0, ended.stderr
    return secured


def _environment(stack: LocalStack, principal: str) -> dict[str, str]:
    return stack.environment | stack.secured.environment(principal, stack.ports)


def _settings(stack: LocalStack, principal: str = "operator", **changes: Any) -> Settings:
    """Return the settings of a process; changes are validated as the environment is."""
    names = Settings.model_fields.keys()
    found: dict[str, Any] = {
        name.lower(): value for name, value in _environment(stack, principal).items() if name.lower() in names and value
    }
    return Settings(**(found | changes))


def _brokers(settings: Settings) -> int:
    return topics.count_brokers(topics.build_admin(settings), 5)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_client_has_a_user_and_a_password(mechanism: str, secured: LocalStack) -> None:
    assert _brokers(_settings(secured, kafka_sasl_mechanism=mechanism)) == 1


def test_a_client_has_a_certificate(secured: LocalStack) -> None:
    """It takes the place of a password."""
    client = secured.secured.client
    certificate = {
        "kafka_security_protocol": "ssl",
        "kafka_ssl_ca": str(secured.secured.ca_file),
        "kafka_ssl_certificate": str(client.certificate_file),
        "kafka_ssl_key": str(client.key_file),
        "kafka_bootstrap_servers": f"{LOOPBACK}:{secured.ports[MUTUAL_PORT]}",
    }
    assert _brokers(_settings(secured, **_NO_SECURITY | certificate)) == 1


@pytest.mark.parametrize("oauth_ca", ["Kafka's", "none"])
def test_no_secret_is_sent_to_a_token_endpoint_that_cannot_be_verified(
    oauth_ca: str, secured: LocalStack, token_server: TokenServer
) -> None:
    """KAFKA_SSL_CA is for the brokers only; the reason names the setting for the token endpoint."""
    token_server.scopes.clear()
    tokens = {
        "kafka_sasl_mechanism": "OAUTHBEARER",
        "kafka_oauth_token_url": token_server.url,
        "kafka_oauth_client_id": "operator",
        "kafka_oauth_client_secret": "the-clients-secret",
        "kafka_oauth_ca": str(secured.secured.ca_file) if oauth_ca == "Kafka's" else "",
        "kafka_bootstrap_servers": f"{LOOPBACK}:{secured.ports[OAUTH_PORT]}",
        "kafka_sasl_username": "",
        "kafka_sasl_password": "",
    }
    with pytest.raises(Unavailable, match="KAFKA_OAUTH_CA"):
        _brokers(_settings(secured, **tokens))
    assert token_server.scopes == []


def test_a_clients_key_may_be_encrypted(secured: LocalStack, tmp_path: Path) -> None:
    """With its password it is used, with another one no process starts."""
    client = secured.secured.client
    key = serialization.load_pem_private_key(client.key_file.read_bytes(), None)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"of-the-key"),
        )
    )
    certificate = {
        "kafka_security_protocol": "ssl",
        "kafka_ssl_ca": str(secured.secured.ca_file),
        "kafka_ssl_certificate": str(client.certificate_file),
        "kafka_ssl_key": str(encrypted),
        "kafka_bootstrap_servers": f"{LOOPBACK}:{secured.ports[MUTUAL_PORT]}",
    }
    assert _brokers(_settings(secured, **_NO_SECURITY | certificate | {"kafka_ssl_key_password": "of-the-key"})) == 1
    for password in ("another", ""):
        with pytest.raises(ValidationError, match="Kafka's client refuses it") as caught:
            _settings(secured, **_NO_SECURITY | certificate | {"kafka_ssl_key_password": password})
        assert "another" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason", "remedy"),
    [
        ({"kafka_sasl_password": "another"}, "Authentication failed", "correct KAFKA_SASL_MECHANISM, KAFKA_SASL_USER"),
        ({"kafka_sasl_username": "nobody"}, "Authentication failed", "correct KAFKA_SASL_MECHANISM, KAFKA_SASL_USER"),
        ({"kafka_ssl_ca": "unknown"}, "verify that KAFKA_SSL_CA is correctly", "set KAFKA_SSL_CA to the CA"),
        (
            {"kafka_bootstrap_servers": "localhost"},
            "certificate verify failed",
            "set KAFKA_SSL_CA to the CA",
        ),
        (
            {"kafka_security_protocol": "plaintext"},
            "the listener may expect another KAFKA_SECURITY_PROTOCOL",
            "correct KAFKA_SECURITY_PROTOCOL: this listener expects another",
        ),
    ],
    ids=["password", "user", "CA", "host", "protocol"],
)
def test_a_failed_connection_says_why(
    changes: dict[str, str],
    reason: str,
    remedy: str,
    secured: LocalStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not only that time is over: at the start, in readiness and in `coupons doctor`."""
    if "kafka_ssl_ca" in changes:
        changes = {"kafka_ssl_ca": str(Authority.load_or_create(tmp_path, "an unknown CA").certificate_file)}
    if "kafka_bootstrap_servers" in changes:
        changes = {"kafka_bootstrap_servers": f"127.1:{secured.ports['kafka']}"}
    if "kafka_security_protocol" in changes:
        changes = _NO_SECURITY | changes
    settings = _settings(secured, **changes)
    monkeypatch.setattr(doctor_checks, "_TIMEOUT_SECONDS", 1.0)

    with pytest.raises(Unavailable, match=r"Kafka ") as caught:
        topics.find(topics.build_admin(settings), Topic.ISSUE_COUPON, 1)
    with open_doctor(settings) as doctor:
        kafka = next(one for one in doctor.examine() if one.part is Part.KAFKA)

    assert reason in str(caught.value)
    assert reason in kafka.found
    assert kafka.remedy.startswith(remedy)
    assert settings.kafka_sasl_password.get_secret_value() not in str(caught.value) or "plaintext" in changes.values()


def test_a_host_name_is_compared_unless_it_is_told_not_to(secured: LocalStack) -> None:
    """127.1 is the same address, and no name in the certificate."""
    by_name = {"kafka_bootstrap_servers": f"127.1:{secured.ports['kafka']}"}

    assert _brokers(_settings(secured, kafka_ssl_verify_hostname=False, **by_name)) == 1


def test_topics_are_created_by_who_may(secured: LocalStack) -> None:
    """Others take those that exist, and are told what to do about those that do not."""
    with pytest.raises(NotPermitted) as caught:
        topics.create_missing(_settings(secured, "operator"))
    said = str(caught.value)
    assert "Create on topics that do not exist. Run `coupons topics create` as a user with that right" in said
    assert "ISSUE_COUPON.dlt with 6 partitions, 1 replicas, message.timestamp.type=LogAppendTime" in said

    created = _run(_environment(secured, "migrate"), "topics", "create")
    assert created.returncode == 0, created.stderr
    assert created.stdout.splitlines() == ["ISSUE_COUPON\t6\t1\tnothing", "ISSUE_COUPON.dlt\t6\t1\tnothing"]
    listed = _run(_environment(secured, "operator"), "topics", "list", "--json")
    assert json.loads(listed.stdout)[0] == {
        "topic": "ISSUE_COUPON",
        "partitions": 6,
        "replicas": 1,
        "differences": [],
    }
    topics.create_missing(_settings(secured, "operator"))


def test_settings_that_may_not_be_read_are_named(migrated: LocalStack) -> None:
    """A process starts without the right to read them, and nobody believes that they were compared."""
    with _granted(migrated, "flower", "DESCRIBE"):
        settings = _settings(migrated, "flower")
        topics.check(settings)
        state, _ = topics.states(settings)

    (difference,) = state.differences
    assert "DescribeConfigs on topic ISSUE_COUPON; not compared: message.timestamp.type=LogAppendTime" in difference


def test_a_right_to_see_a_topic_is_named(migrated: LocalStack) -> None:
    with pytest.raises(NotPermitted, match="Describe on topic ISSUE_COUPON"):
        topics.check(_settings(migrated, "flower"))
    log = migrated.directory / "log" / "kafka.log"
    eventually(lambda: "User:flower is Denied operation = DESCRIBE" in log.read_text())  # other tests look for this


@contextmanager
def _granted(stack: LocalStack, principal: str, operation: str) -> Iterator[None]:
    """Let a principal do something with both topics."""
    login = stack.secured.kafka_client("admin")
    admin = AdminClient({"bootstrap.servers": stack.kafka_bootstrap_servers, "log_level": 0, **login})
    granted: tuple[Any, ...] = (f"User:{principal}", "*", AclOperation[operation], AclPermissionType.ALLOW)
    names = [(ResourceType.TOPIC, topic.value, ResourcePatternType.LITERAL) for topic in Topic]
    filters = [AclBindingFilter(*name, *granted) for name in names]

    def found() -> int:  # the broker's authorizer learns of a change after the answer to it
        return sum(len(admin.describe_acls(one).result(10)) for one in filters)

    for created in admin.create_acls([AclBinding(*name, *granted) for name in names]).values():
        created.result(10)
    try:
        eventually(lambda: found() == len(names))
        yield
    finally:
        for deleted in admin.delete_acls(filters).values():
            deleted.result(10)
        eventually(lambda: found() == 0)


def _run(environment: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "service.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_an_issuer_that_waits_says_why(migrated: LocalStack, tmp_path: Path) -> None:
    """Its log and its readiness have what Kafka's client says."""
    port = ports.any_free()
    wrong = {"KAFKA_SASL_PASSWORD": "a-wrong-password", "ISSUER_PORT": str(port), "LOG_LEVEL": "info"}
    log = tmp_path / "issuer.log"
    with _process(_environment(migrated, "issuer") | wrong, log, "workers.issuer"):
        eventually(lambda: "Authentication failed" in _readiness(port)["issuer"])
        eventually(lambda: "Authentication failed" in log.read_text())
    assert wrong["KAFKA_SASL_PASSWORD"] not in log.read_text()


def _readiness(port: int) -> dict[str, str]:
    return dict(httpx.get(f"http://{LOOPBACK}:{port}/readyz").json()["faults"])


@contextmanager
def _process(environment: Mapping[str, str], log: Path, *command: str) -> Iterator[None]:
    """Run a module as a process with its output in a file; kill it and its children at the end."""
    with log.open("wb") as output:
        process = psutil.Popen([sys.executable, "-m", *command], env=environment, stdout=output, stderr=output)
    try:
        yield
    finally:
        for one in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


_PROCESSES = {
    "api": ("service.api",),
    "issuer": ("workers.issuer",),
    "worker": ("celery", "-A", "workers", "worker", "--loglevel=info", "--concurrency=1"),
    "beat": ("celery", "-A", "workers", "beat", "--loglevel=info"),
    "flower": ("celery", "-A", "workers", "flower", "--address=127.0.0.1"),
}


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("api", "REDIS_URL"),
        ("issuer", "REDIS_URL"),
        ("worker", "CELERY_BROKER_URL"),
        ("beat", "CELERY_BROKER_URL"),
        pytest.param("flower", "CELERY_BROKER_URL", marks=pytest.mark.all_rows),
    ],
)
def test_a_certificate_of_an_unknown_ca_is_refused(
    name: str, variable: str, migrated: LocalStack, tmp_path: Path
) -> None:
    """The gate and Celery's broker: no process sends its password to whom it cannot verify.

    The other URL is right. Left out are issuer and broker, worker and gate: alone they do not say why it failed.
    """
    unknown = Authority.load_or_create(tmp_path, "an unknown CA").certificate_file
    environment = _environment(migrated, name)
    url = environment[variable].replace(str(migrated.secured.ca_file), str(unknown))
    own = {f"{server}_PORT": str(ports.any_free()) for server in ("API", "ISSUER", "FLOWER")} | {"LOG_LEVEL": "debug"}
    before = _accepted(migrated, variable)

    log = tmp_path / "log"
    with _process(environment | {variable: url} | own, log, *_PROCESSES[name]):
        if name == "api":
            address = f"http://{LOOPBACK}:{own['API_PORT']}/readyz"
            eventually(lambda: "certificate verify failed" in httpx.get(address).text)
        else:
            eventually(lambda: "certificate verify failed" in log.read_text())

    assert _accepted(migrated, variable) == before


def _accepted(stack: LocalStack, variable: str) -> int:
    """Return how many connections the proxy has accepted to which a URL leads."""
    proxy = {"REDIS_URL": GATE_TLS_PORT, "CELERY_BROKER_URL": BROKER_TLS_PORT}[variable]
    return (stack.directory / "log" / f"{proxy}.log").read_text().count("accepted")


#: what nobody's process needs at Redis: to read or change the server, all keys, or what others do
_NEVER = (
    ["ACL", "LIST"],
    ["CLIENT", "LIST"],
    ["CONFIG", "GET", "*"],
    ["DEBUG", "SLEEP", "1"],
    ["FLUSHALL"],
    ["FLUSHDB"],
    ["KEYS", "*"],
    ["MIGRATE", "127.0.0.1", "1", "gate:1", "0", "1"],
    ["MONITOR"],
    ["REPLICAOF", "NO", "ONE"],
    ["SCRIPT", "FLUSH"],
    ["SHUTDOWN"],
    ["SWAPDB", "0", "1"],
)
_SEATS, _TASK = "gate:1:seats", "a task"
_REFUSED: Mapping[tuple[str, str], list[list[str]]] = {
    (GATE, "api"): [["GET", "retry"], ["UNLINK", _SEATS], ["SCAN", "0"]],
    (GATE, "issuer"): [
        ["LPUSH", "retry", _TASK],
        ["ZADD", "gate:unacknowledged", "1", "a request"],
        ["UNLINK", _SEATS],
    ],
    (GATE, "worker"): [["LPUSH", "retry", _TASK], ["HGETALL", _SEATS], ["RPUSH", "gate:follow_ups", "one"]],
    (GATE, "beat"): [["GET", "gate:run_id"], ["SET", "gate:swept_at", "1"], ["HGET", "gate:1", "capacity"]],
    (GATE, "operator"): [["HGETALL", _SEATS], ["LPUSH", "retry", _TASK]],
    (BROKER, "worker"): [
        ["GET", "gate:write_check"],
        ["HGET", _SEATS, "7"],
        ["PUBLISH", "/0.celery.pidbox", "a command"],
    ],
    (BROKER, "issuer"): [["BRPOP", "retry", "1"], ["DEL", "retry"], ["PUBLISH", "/1.celery.pidbox", "a command"]],
    (BROKER, "beat"): [["LPUSH", "retry", _TASK], ["BRPOP", "maintenance", "1"], ["PUBLISH", "/1.celery.pidbox", "it"]],
    (BROKER, "flower"): [
        *([command, queue, *more] for queue in Queue for command, *more in (["LPUSH", _TASK], ["BRPOP", "1"], ["DEL"])),
        ["RPUSH", "retry", _TASK],
        ["LRANGE", "retry", "0", "-1"],
        ["SADD", "_kombu.binding.retry", "another queue"],
        ["ZREM", "unacked_index", "one"],
        ["HGET", "unacked", "one"],
        ["SET", "unacked_mutex", "1"],
    ],
    (BROKER, "operator"): [["LPUSH", "retry", _TASK], ["LLEN", "retry"], ["GET", "gate:write_check"]],
}
"""What a user may not do beside that, by server and user."""


def test_a_user_of_redis_is_refused_what_its_process_does_not_do(secured: LocalStack) -> None:
    """Each has its own line, and no user of one server is one of the other by accident."""
    granted: list[object] = []
    for server, path in REDIS_ACLS.items():
        with administrator(secured, server) as admin:
            users = read_rules(path.read_text()).keys()
            assert {*users, "default", valkey.ADMIN} == set(admin.acl_users())
            for user in users:
                assert admin.acl_dryrun(user, "PING") == "OK"
                commands = [*_NEVER, *_REFUSED[server, user]]
                answers = {tuple(command): admin.acl_dryrun(user, *command) for command in commands}
                granted += [(server, user, *command) for command, answer in answers.items() if answer == "OK"]
    assert granted == []


@pytest.mark.parametrize("server", REDIS_ACLS)
def test_redis_refuses_a_client_without_a_user(server: str, secured: LocalStack) -> None:
    """The first line of each file switches the user `default` off, who may otherwise do everything."""
    with build_client(f"redis://{LOOPBACK}:{secured.ports[server]}/0") as nobody, pytest.raises(AuthenticationError):
        nobody.ping()


#: operations that others include, as Kafka defines them
_INCLUDED = {"READ": "DESCRIBE", "WRITE": "DESCRIBE"}


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_a_user_of_kafka_may_do_exactly_what_is_documented(principal: str, migrated: LocalStack) -> None:
    """Nobody may alter or delete a topic, or its records; Kafka itself says what each user may do."""
    acls = {acl.name: acl.operations for acl in read_kafka_acls(KAFKA_ACLS[0]) if acl.principal == principal}
    for topic in Topic:
        named = {operation_name(operation) for operation in acls.get(topic, ())}
        expected = named | {_INCLUDED[operation] for operation in named & _INCLUDED.keys()}
        assert _authorized_operations(migrated, principal, topic) == expected, topic


def _authorized_operations(stack: LocalStack, principal: str, topic: Topic) -> set[str]:
    login = stack.secured.kafka_client(principal)
    admin = AdminClient({"bootstrap.servers": stack.kafka_bootstrap_servers, "log_level": 0, **login})
    found = admin.describe_topics(TopicCollection([topic.value]), include_authorized_operations=True)
    try:
        return {operation.name for operation in found[topic.value].result(10).authorized_operations}
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise
        return set()


def test_only_the_issuer_joins_its_group(migrated: LocalStack) -> None:
    """Another member would get partitions, and their records would wait."""
    group = {"bootstrap.servers": migrated.kafka_bootstrap_servers, "group.id": Group.ISSUER.value, "log_level": 0}
    for principal in set(PRINCIPALS) - {"issuer"}:
        with Consumer({**group, **migrated.secured.kafka_client(principal)}) as consumer:
            refused = partial(_reason_of_refusal, consumer)
            consumer.subscribe([Topic.ISSUE_COUPON.value])
            assert eventually(refused) in _REFUSALS


_REFUSALS = (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED)


def _reason_of_refusal(consumer: Consumer) -> int | None:
    message = consumer.poll(0.1)
    error = message and message.error()
    return int(error.code()) if error else None


def _execute(stack: LocalStack, commands: str, replaced: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run an example with names and passwords of this stack, and what it does not set from the stack."""
    base = {name: value for name, value in _environment(stack, "operator").items() if name not in KAFKA_SECURITY}
    return run(commands, replaced, base)


_LISTED = ["ISSUE_COUPON\t6\t1\tnothing", "ISSUE_COUPON.dlt\t6\t1\tnothing"]


def test_the_example_of_a_clouds_kafka(migrated: LocalStack) -> None:
    """Its CA is not public here, and there is one broker."""
    ca = f"export KAFKA_SSL_CA={migrated.secured.ca_file}"
    ended = _execute(
        migrated,
        f"{ca}\n{example(containing='confluent.cloud')}",
        {
            "pkc-00000.eu-central-1.aws.confluent.cloud:9092": migrated.kafka_bootstrap_servers,
            "API_KEY": "api",
            "API_SECRET": migrated.secured.passwords["api"],
            "TOPIC_REPLICATION=3 TOPIC_MIN_INSYNC_REPLICAS=2": "TOPIC_REPLICATION=1",
        },
    )
    assert (ended.stdout.splitlines(), ended.stderr) == (_LISTED, "")


def test_the_example_of_scram(migrated: LocalStack) -> None:
    ended = _execute(
        migrated,
        example(containing="SCRAM-SHA-512"),
        {
            "kafka.example.com:9096": migrated.kafka_bootstrap_servers,
            "=PASSWORD": f"={migrated.secured.passwords['operator']}",
            "/etc/ssl/kafka-ca.pem": str(migrated.secured.ca_file),
        },
    )
    assert (ended.stdout.splitlines(), ended.stderr) == (_LISTED, "")


def test_the_example_of_tokens(migrated: LocalStack, token_server: TokenServer, provider_ca: Authority) -> None:
    """The provider's CA is not public here. The broker takes the extensions of Confluent Cloud, and ignores them."""
    (extensions,) = re.findall(r"`(KAFKA_OAUTH_EXTENSIONS=.+?)`", PAGE.read_text())
    token_server.scopes.clear()
    ended = _execute(
        migrated,
        f"export {extensions} KAFKA_OAUTH_CA={provider_ca.certificate_file}\n{example(containing='OAUTHBEARER')}",
        {
            "kafka.example.com:9093": f"{LOOPBACK}:{migrated.ports[OAUTH_PORT]}",
            "https://id.example.com/oauth2/token": token_server.url,
            "=SECRET": "=the-clients-secret",
            "/etc/ssl/kafka-ca.pem": str(migrated.secured.ca_file),
        },
    )
    assert (ended.stdout.splitlines(), ended.stderr) == (_LISTED, "")
    assert set(token_server.scopes) == {"kafka"}


def test_the_example_of_client_certificates(migrated: LocalStack) -> None:
    client = migrated.secured.client
    ended = _execute(
        migrated,
        example(containing="KAFKA_SSL_CERTIFICATE"),
        {
            "kafka.example.com:9094": f"{LOOPBACK}:{migrated.ports[MUTUAL_PORT]}",
            "/etc/ssl/kafka-ca.pem": str(migrated.secured.ca_file),
            "/etc/ssl/operator.pem": str(client.certificate_file),
            "/etc/ssl/operator.key": str(client.key_file),
        },
    )
    assert (ended.stdout.splitlines(), ended.stderr) == (_LISTED, "")


def test_the_example_of_a_managed_redis(migrated: LocalStack) -> None:
    """The parts that it is about; no issuer runs, and the operator may not write to the log."""
    gate, broker = (f"{LOOPBACK}:{migrated.ports[name]}" for name in (GATE_TLS_PORT, BROKER_TLS_PORT))
    password = migrated.secured.passwords["operator"]
    security = "\n".join(
        f"export {name}={value}" for name, value in _environment(migrated, "operator").items() if name in KAFKA_SECURITY
    )
    ended = _execute(
        migrated,
        f"{security}\n{example(containing='gate.example.com')}",
        {
            ":PASSWORD@gate.example.com:6379": f":{password}@{gate}",
            ":BROKER_PASSWORD@broker.example.com:6379": f":{password}@{broker}",
            "/etc/ssl/redis-ca.pem": str(migrated.secured.ca_file),
        },
    )
    found = dict(line.split("\t")[:2] for line in ended.stdout.splitlines())
    assert {part: found[part] for part in ("settings", "kafka", "topics", "redis", "celery broker")} == dict.fromkeys(
        ("settings", "kafka", "topics", "redis", "celery broker"), "ok"
    ), ended.stdout
