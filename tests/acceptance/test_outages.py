"""Outages of Kafka, PostgreSQL and Valkey: reported at once, nothing lost, recovery without a restart."""

import httpx

from service.log_events import LogEvent
from service.stream.partitioner import partition_of
from tests.system import System


def test_without_kafka_nothing_is_accepted_and_nothing_is_lost(system: System) -> None:
    """503 with Retry-After, and unready, while Kafka is down; a repeat afterwards is accepted under one id."""
    coupon = system.make_coupon(quantity=5)
    system.stack.stop("kafka")
    try:
        refused = system.request_issuance(coupon, 1)
        assert refused is not None
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert system.eventually(lambda: system.http.get("/readyz").status_code == 503)
    finally:
        system.stack.start("kafka")

    repeat = system.eventually(
        lambda: answer if (answer := system.request_issuance(coupon, 1)) and answer.status_code < 500 else None
    )

    assert repeat.status_code in (202, 409)
    request_id = repeat.headers["location"].removeprefix("/issuances/")
    assert system.wait_until_final(request_id)["state"] == "issued"
    assert system.count("SELECT count(*) FROM requests WHERE coupon_id = :id", id=coupon) == 1


def test_without_postgresql_the_gate_still_accepts(system: System) -> None:
    """The issuer pauses and reports why; the API is ready but degraded, and what it accepts is issued afterwards."""
    coupon = system.make_coupon(quantity=5)
    system.stack.stop("postgres")
    try:
        answer = system.request_issuance(coupon, 1)
        assert answer is not None
        assert answer.status_code == 202, answer.text
        system.eventually(lambda: issuer_readiness(system).status_code == 503)
        assert issuer_readiness(system).json()["faults"]
        assert system.eventually(lambda: system.http.get("/readyz").json()["degraded"] == ["postgresql"])
        ready = system.http.get("/readyz")
        assert (ready.status_code, list(ready.json()["reasons"])) == (200, ["postgresql"])
        assert system.http.get("/coupons").status_code == 503
    finally:
        system.stack.start("postgres")

    assert system.wait_until_final(answer.json()["request_id"])["attempts"] == 1
    system.eventually(lambda: issuer_readiness(system).status_code == 200)


def test_without_valkey_the_database_answers(system: System) -> None:
    """Degraded and ready: requests are accepted, repeats are duplicates, unknown coupons get 404."""
    coupon = system.make_coupon(quantity=5)
    system.stack.stop("valkey")
    try:
        answer = system.request_issuance(coupon, 1)
        assert answer is not None
        assert answer.status_code == 202, answer.text
        assert system.wait_until_final(answer.json()["request_id"])["state"] == "issued"
        repeat = system.request_issuance(coupon, 1)
        assert repeat is not None
        assert (repeat.status_code, repeat.json()["code"]) == (409, "duplicate")
        assert system.eventually(lambda: system.http.get("/readyz").json()["degraded"] == ["redis"])
        assert system.http.get("/readyz").status_code == 200
        unknown = system.request_issuance(2**40, 1)
        assert unknown is not None
        assert unknown.status_code == 404
    finally:
        system.stack.start("valkey")


def test_issuing_does_not_wait_for_celery_without_valkey(system: System) -> None:
    """A message that cannot be sent is dropped, and the sweep finds its row."""
    coupon = system.make_coupon(quantity=1)
    log = system.stack.directory / "log" / "issuer.log"
    dropped_before = log.read_text().count(LogEvent.MESSAGES_LOST)
    system.stack.stop("valkey")
    try:
        answer = system.request_issuance(coupon, 1, fault="22012 1")
        assert answer is not None
        assert answer.status_code == 202, answer.text
        retrying = "SELECT count(*) FROM requests WHERE coupon_id = :id AND state = 'retrying'"
        system.eventually(lambda: system.count(retrying, id=coupon) == 1)
        system.eventually(lambda: log.read_text().count(LogEvent.MESSAGES_LOST) > dropped_before)
    finally:
        system.stack.start("valkey")

    assert system.wait_until_final(answer.json()["request_id"])["state"] == "issued"


def issuer_readiness(system: System) -> httpx.Response:
    """Return the answer of the issuer's readiness endpoint."""
    return httpx.get(f"{system.stack.issuer_url}/readyz", auth=system.credentials)


def partition_fault(system: System, partition: int) -> str:
    """Return the fault that the issuer reports for a partition, or an empty text."""
    return str(issuer_readiness(system).json()["faults"].get(f"partition {partition}", ""))


def test_an_offset_outside_the_log_stops_its_partition(system: System) -> None:
    """The partition reports the fault, the others continue; with the corrected offset nothing is lost."""
    coupons = [system.make_coupon(quantity=1) for _ in range(12)]
    partitions = {coupon: partition_of(coupon, system.settings.topic_partitions) for coupon in coupons}
    stopped = partitions[coupons[0]]
    other = next(coupon for coupon in coupons if partitions[coupon] != stopped)
    move = f"UPDATE offsets SET next_offset = next_offset + :by WHERE partition = {stopped} RETURNING 1"
    system.count(move, by=1_000_000)
    try:
        system.stack.kill("issuer")
        system.eventually(
            lambda: "not in the log" in issuer_readiness(system).json()["faults"].get(f"partition {stopped}", "")
        )
        waiting, served = system.request_issuance(coupons[0], 1), system.request_issuance(other, 1)
        assert waiting is not None
        assert served is not None
        assert system.wait_until_final(served.json()["request_id"])["state"] == "issued"
        assert system.read_status(waiting.json()["request_id"])["state"] == "queued"
    finally:
        system.count(move, by=-1_000_000)
        system.stack.kill("issuer")
        system.stack.wait_up("issuer")
        system.stack.restart("api")  # it shows no position that grows, so none of this partition after that offset

    assert system.wait_until_final(waiting.json()["request_id"])["state"] == "issued"
