"""The whole system on secured servers: TLS, passwords, and for each process exactly the documented rights."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from stack.secured import REDIS_ACLS, TLS_PROXIES
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


def test_nothing_connects_without_tls(secured_system: System) -> None:
    """The processes have no address of Valkey but that of its TLS proxy, and Kafka has no other listener."""
    log = Path(secured_system.stack.directory / "log" / "valkey-tls.log").read_text()

    assert "a connection was accepted" in log
    properties = (secured_system.stack.directory / "kafka" / "server.properties").read_text()
    assert ":PLAINTEXT" not in properties


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
