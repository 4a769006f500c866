"""The whole system on secured servers: TLS, passwords, and for each process exactly the documented rights."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from redis import ConnectionError as RedisConnectionError
from sqlalchemy import make_url

from service.gate.client import build_client
from service.gate.gate_admin import GateAdmin
from stack.secured import (
    BROKER,
    BROKER_TLS_PORT,
    GATE,
    GATE_TLS_PORT,
    KAFKA_ACLS,
    MUTUAL_PORT,
    REDIS_ACLS,
    TLS_PROXIES,
    operation_name,
    read_kafka_acls,
)
from stack.server_env import LOOPBACK
from stack.settings import CELERY_OVER_KAFKA, KAFKA_SECURITY
from stack.startup import APP_PROCESSES
from tests.fixtures.redis_rights import Done, administrator, read_rules, recorded
from tests.fixtures.running import running
from tests.system import System

QUANTITY, USERS = 40, 60


def _sell(system: System) -> str:
    """Sell a coupon whose requests fail in every way, until every accepted request is final; return one of those."""
    coupon = system.make_coupon(QUANTITY, waitlist=10)
    failing = [system.request_until_answered(coupon, user, fault="22012 1") for user in (1, 2, 3)]
    dying = system.request_until_answered(coupon, 4, fault="22012 9")
    assert system.request_until_answered(coupon, 1).json()["code"] == "duplicate"

    answers = [*failing, dying, *system.request_many_until_answered(coupon, range(5, USERS + 1))]

    accepted = [answer.json()["request_id"] for answer in answers if answer.status_code == 202]
    states = Counter(system.wait_until_final(request_id)["state"] for request_id in accepted)
    assert states == {"issued": QUANTITY, "dead": 1, "refused": 9}
    (dead_letter,) = system.http.get("/dead-letters", params={"coupon_id": coupon}).json()["dead_letters"]
    assert system.http.post(f"/dead-letters/{dead_letter['id']}/replay").is_success
    assert system.http.post(f"/coupons/{coupon}/issuances", json={"user_id": 4}).status_code == 409
    return str(accepted[0])


def _assert_nothing_was_refused(system: System) -> None:
    assert _refused_at_valkey(system) == []
    assert _refused_at_kafka(system) == []


def _refused_at_kafka(system: System) -> list[str]:
    """Return what Kafka's authorizer refused, from its log."""
    return [line for line in _kafka_log(system) if " is Denied " in line or "Failed authentication" in line]


def _kafka_log(system: System) -> list[str]:
    return (system.stack.directory / "log" / "kafka.log").read_text().splitlines()


def _refused_at_valkey(system: System) -> list[object]:
    """Return which commands and keys the gate and Celery's broker refused; that may be Kafka, which has no such log."""
    refused: list[object] = []
    for server in REDIS_ACLS.keys() & system.stack.names:
        with administrator(system.stack, server) as admin:
            refused += [(server, entry["username"], entry["reason"], entry["object"]) for entry in admin.acl_log()]
    return refused


#: What a start, a sale and the commands below need not use, by server and user. Every client sends PING before it uses
#: an idle connection, and SELECT for another database than 0.
_CLIENT = {"+ping", "+select"}
_USED_ELSEWHERE = {
    # a request for an id between those of two coupons that no coupon has
    (GATE, "api"): {"+hsetnx"},
    # the sweep of an issuer: a task that Celery did not take, a gate that was restarted
    (GATE, "issuer"): {"+del", "+scan"},
    # a change of a coupon that the gate does not have; a gate that was restarted; `maintenance.evict_ended`
    (GATE, "worker"): {"+expire", "+scan", "+script|exists", "+time", "+unlink"},
    # a dead seat in a repair; `coupons log adopt` and `skip`, `coupons request-id-keys remove`, changes of coupons
    (GATE, "operator"): {
        "+hscan",
        "+ltrim",
        "+rpush",
        "+scan",
        "+script|load",
        "+zmscore",
        "+zrem",
        "+zscan",
        "+zscore",
    },
    # kombu: tasks of a worker that was killed or stopped, malformed ones, replies that nobody has taken for an hour
    (BROKER, "worker"): {"+exists", "+hget", "+rpush", "+unwatch", "+watch"},
    # kombu: replies that nobody has taken for an hour, and a lost connection
    (BROKER, "flower"): {"+exists", "+punsubscribe", "+zrem"},
}


def _look_at_the_workers(system: System) -> None:
    """In the issuer's metrics and Flower's pages, and with Celery's own command as Flower's user."""
    metrics = f"{system.stack.issuer_url}/metrics"
    system.eventually(lambda: "coupons_celery_worker_age_seconds{" in httpx.get(metrics, auth=system.credentials).text)
    with httpx.Client(base_url=system.stack.flower_url, auth=system.stack.flower_login, timeout=20) as flower:
        assert flower.get("/api/workers", params={"refresh": "true"}).json()
        assert flower.get("/api/queues/length").json()["active_queues"]
    inspect = [sys.executable, "-m", "celery", "-A", "workers", "inspect", "ping"]
    environment = system.stack.environment | system.stack.secured.environment("flower", system.stack.ports)
    assert subprocess.run(inspect, env=environment, capture_output=True, timeout=60, check=False).returncode == 0


def _command(system: System, *arguments: str, at_kafka: str = "operator") -> None:
    """Run a command as the operator, at Kafka as one of its users."""
    stack = system.stack
    own = {
        name: value
        for name, value in stack.secured.environment(at_kafka, stack.ports).items()
        if name in KAFKA_SECURITY
    }
    command = (sys.executable, "-m", "service.cli", *arguments)
    environment = stack.environment | own
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, (ended.stdout, ended.stderr)


def test_a_sale_with_failing_requests_needs_exactly_the_documented_rights(secured_system: System) -> None:
    """P1 to P5: retries, a dead letter, its replay, notices and the proof; no process is refused anything.

    And each right is used: Kafka's log and the monitors of Valkey's servers say which ones.
    """
    beats = secured_system.stack.secured.environment("beat", secured_system.stack.ports)
    with ExitStack() as recording:
        beat = recording.enter_context(build_client(beats["REDIS_URL"]))  # open until everything is recorded
        admins = {server: recording.enter_context(administrator(secured_system.stack, server)) for server in REDIS_ACLS}
        done = {server: recording.enter_context(recorded(admin)) for server, admin in admins.items()}
        for admin in admins.values():
            admin.script_flush()
        for process in APP_PROCESSES:
            secured_system.stack.restart(process)
        secured_system.wait_until_ready()
        request_id = _sell(secured_system)
        assert secured_system.http.get(f"/issuances/{request_id}/history").is_success
        assert GateAdmin(beat).seconds_since_sweep() is not None  # the health check of its container
        _look_at_the_workers(secured_system)
        _command(secured_system, "gate", "repair")
        _command(secured_system, "verify")
        _command(secured_system, "doctor", at_kafka="api")  # it examines the API's rights
        assert secured_system.http.get("/readyz").json()["reasons"] == {}
        secured_system.wait_until_idle()

    _assert_nothing_was_refused(secured_system)
    assert _unused_at_valkey(done) == {}
    assert _documented_at_kafka() - _used_at_kafka(secured_system) == set()


def _unused_at_valkey(done: Mapping[str, Mapping[str, Done]]) -> dict[tuple[str, str], set[str]]:
    """Return the rules that nothing has used, by server and user."""
    found: dict[tuple[str, str], set[str]] = {}
    for server, path in REDIS_ACLS.items():
        for user, rules in read_rules(path.read_text()).items():
            elsewhere = _USED_ELSEWHERE.get((server, user), set())
            assert elsewhere <= set(rules.split()), (server, user)
            if unused := done[server][user].unused(rules) - elsewhere - _CLIENT:
                found[server, user] = unused
    return found


_ALLOWED = re.compile(
    r"Principal = User:(\w+) is Allowed operation = (\w+) .* on resource = (Topic|Group):LITERAL:(\S+) for request"
)


def _used_at_kafka(system: System) -> set[tuple[str, str, str, str]]:
    """Return each right that a client has used, from Kafka's log: principal, kind, name, operation."""
    found = [match.groups() for line in _kafka_log(system) if (match := _ALLOWED.search(line))]
    return {(principal, kind.lower(), name, operation) for principal, operation, kind, name in found}


def _documented_at_kafka() -> set[tuple[str, str, str, str]]:
    acls = read_kafka_acls(KAFKA_ACLS[0])
    return {
        (acl.principal, acl.kind, acl.name, operation_name(operation)) for acl in acls for operation in acl.operations
    }


def _pooler_port(system: System) -> int:
    return make_url(system.stack.database_url).port or 0


def test_a_server_refuses_a_client_without_tls(secured_system: System) -> None:
    """Each port that the processes know: Kafka's, the gate's, the broker's and PgBouncer's."""
    ports = secured_system.stack.ports
    for name in ("kafka", MUTUAL_PORT):
        with pytest.raises(KafkaException):
            AdminClient({"bootstrap.servers": f"{LOOPBACK}:{ports[name]}", "log_level": 0}).list_topics(timeout=2)
    for name in TLS_PROXIES:
        with build_client(f"redis://{LOOPBACK}:{ports[name]}/0") as plain, pytest.raises(RedisConnectionError):
            plain.ping()
    url = make_url(secured_system.stack.database_url).update_query_dict({"sslmode": "disable"})
    with pytest.raises(psycopg.OperationalError, match="SSL required"):
        psycopg.connect(url.render_as_string(hide_password=False))


def test_each_process_connects_to_ports_with_tls_only(secured_system: System) -> None:
    """And to no other server than it needs, as in docker-compose.yml."""
    ports, pooler = secured_system.stack.ports, _pooler_port(secured_system)
    kafka, gate, broker = ports["kafka"], ports[GATE_TLS_PORT], ports[BROKER_TLS_PORT]
    expected = {
        "api": {kafka, gate, pooler},
        "issuer": {kafka, gate, broker, pooler},
        "worker": {kafka, gate, broker, pooler},
        "beat": {broker},
        "flower": {broker},
    }
    _sell(secured_system)

    receiver = urlsplit(secured_system.receiver.url).port
    for process, servers in expected.items():
        secured_system.eventually(partial(_is_connected, secured_system.stack.pid(process), servers))
        assert _server_ports(secured_system.stack.pid(process)) - {receiver} == servers, process


def _is_connected(pid: int, ports: set[int]) -> bool:
    return _server_ports(pid) >= ports


def _server_ports(pid: int) -> set[int]:
    """Return the ports to which a process and its descendants have connections as clients."""
    process = psutil.Process(pid)
    family = (process, *process.children(recursive=True))
    connections = [connection for one in family for connection in one.net_connections("inet")]
    own = {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}
    return {
        connection.raddr.port for connection in connections if connection.raddr and connection.laddr.port not in own
    }


@pytest.mark.all_rows
@pytest.mark.timeout(300)
def test_a_sale_survives_kills_on_secured_servers(secured_system: System) -> None:
    """P7: killed processes authenticate themselves again."""
    refused_before = _refused_at_kafka(secured_system)  # other tests are refused on purpose
    for name in ("issuer", "worker", "kafka", *TLS_PROXIES):
        secured_system.stack.kill(name)
        secured_system.stack.wait_up(name)
        secured_system.wait_until_ready()
        # A connection to the gate may still be a broken one: then the database admits, and a repeat is accepted again.
        # This sale uses them all.
        coupon = secured_system.make_coupon(QUANTITY)
        secured_system.request_many_until_answered(coupon, range(1, USERS + 1))
        secured_system.wait_until_idle()
        assert secured_system.count("SELECT issued FROM coupons WHERE id = :id", id=coupon) == QUANTITY
        _sell(secured_system)

    secured_system.wait_until_idle()
    assert _refused_at_valkey(secured_system) == []
    refused = _refused_at_kafka(secured_system)[len(refused_before) :]
    # a handshake that fails is no refusal: a server starts, or a client looks whether it does
    assert [line for line in refused if "SSL handshake failed" not in line] == []


@pytest.fixture
def over_kafka(tmp_path: Path) -> Iterator[System]:
    with running(tmp_path, {"CELERY_BROKER_URL": CELERY_OVER_KAFKA, "SECURED": "on"}) as system:
        system.wait_until_ready()
        yield system
        system.wait_until_idle()
        system.assert_promises()


@pytest.mark.all_rows
@pytest.mark.timeout(300)
def test_celery_over_a_secured_kafka(over_kafka: System) -> None:
    """Kombu's clients get the same security, and the rights of deploy/kafka-acls-celery.txt suffice."""
    _sell(over_kafka)

    over_kafka.wait_until_idle()
    _assert_nothing_was_refused(over_kafka)
