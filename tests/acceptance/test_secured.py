"""The whole system on secured servers: TLS, passwords, and for each process exactly the documented rights."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from sqlalchemy import make_url

from service.gate.client import build_client
from stack.secured import BROKER_TLS_PORT, GATE_TLS_PORT, MUTUAL_PORT, REDIS_ACLS, TLS_PROXIES
from stack.server_env import LOOPBACK
from stack.servers import valkey
from stack.settings import CELERY_OVER_KAFKA
from tests.fixtures.running import running
from tests.system import System

QUANTITY, USERS = 40, 60


def _sell(system: System) -> None:
    """Sell a coupon whose requests fail in every way, until every accepted request is final."""
    coupon = system.make_coupon(QUANTITY, waitlist=10)
    failing = [system.request_until_answered(coupon, user, fault="22012 1") for user in (1, 2, 3)]
    dying = system.request_until_answered(coupon, 4, fault="22012 9")

    answers = [*failing, dying, *system.request_many_until_answered(coupon, range(5, USERS + 1))]

    accepted = [answer.json()["request_id"] for answer in answers if answer.status_code == 202]
    states = Counter(system.wait_until_final(request_id)["state"] for request_id in accepted)
    assert states == {"issued": QUANTITY, "dead": 1, "refused": 9}
    (dead_letter,) = system.http.get("/dead-letters", params={"coupon_id": coupon}).json()["dead_letters"]
    assert system.http.post(f"/dead-letters/{dead_letter['id']}/replay").is_success
    assert system.http.post(f"/coupons/{coupon}/issuances", json={"user_id": 4}).status_code == 409


def _refused_at_kafka(system: System) -> list[str]:
    """Return what Kafka's authorizer refused, from its log."""
    log = (system.stack.directory / "log" / "kafka.log").read_text()
    return [line for line in log.splitlines() if " is Denied " in line or "Failed authentication" in line]


def _refused_at_valkey(system: System) -> list[object]:
    """Return which commands and keys the gate and Celery's broker refused."""
    refused: list[object] = []
    for server in REDIS_ACLS:
        with _administrator(system, server) as admin:
            refused += [(server, entry["username"], entry["reason"], entry["object"]) for entry in admin.acl_log()]
    return refused


def _administrator(system: System, server: str) -> "Redis":
    """Connect as the stack's own user of a Valkey server."""
    port, password = system.stack.ports[server], system.stack.credentials.valkey
    return Redis(LOOPBACK, port, username=valkey.ADMIN, password=password, decode_responses=True)


def test_a_sale_with_failing_requests_needs_no_other_rights(secured_system: System) -> None:
    """P1 to P5: retries, a dead letter, its replay, notices and the proof; and no process was refused anything."""
    _sell(secured_system)

    assert secured_system.http.get("/readyz").json()["reasons"] == {}
    secured_system.wait_until_idle()
    assert _refused_at_valkey(secured_system) == []
    assert _refused_at_kafka(secured_system) == []


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
    for name in ("issuer", "worker", "kafka", *TLS_PROXIES):
        secured_system.stack.kill(name)
        secured_system.stack.wait_up(name)
        secured_system.wait_until_ready()
        _sell(secured_system)

    secured_system.wait_until_idle()
    assert _refused_at_valkey(secured_system) == []


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

    assert _refused_at_kafka(over_kafka) == []
