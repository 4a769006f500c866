"""A part away: said at once, nothing lost, over without a restart."""

import httpx

from service.stream.partitioner import partition_of
from tests.system import System


def test_without_kafka_nothing_is_accepted_and_nothing_is_lost(system: System) -> None:
    """503 with Retry-After while the log is away; readiness is red; a repeat afterwards is accepted under one id."""
    coupon = system.make_coupon(quantity=5)
    system.stack.stop("kafka")
    try:
        away = system.ask(coupon, 1)
        assert away is not None
        assert (away.status_code, away.json()["code"]) == (503, "unavailable")
        assert int(away.headers["retry-after"]) >= 1
        assert system.http.get("/readyz").status_code == 503
    finally:
        system.stack.start("kafka")

    back = system.eventually(lambda: answer if (answer := system.ask(coupon, 1)) and answer.status_code < 500 else None)

    assert back.status_code in (202, 409)
    request_id = back.headers["location"].removeprefix("/issuances/")
    assert system.final(request_id)["state"] == "issued"
    assert system.count("SELECT count(*) FROM requests WHERE coupon_id = :id", id=coupon) == 1


def test_without_postgresql_the_gate_still_accepts(system: System) -> None:
    """The issuer pauses and says why; requests for a coupon the gate knows are accepted, and issued afterwards."""
    coupon = system.make_coupon(quantity=5)
    system.stack.stop("postgres")
    try:
        answer = system.ask(coupon, 1)
        assert answer is not None
        assert answer.status_code == 202, answer.text
        system.eventually(lambda: issuer(system).status_code == 503)
        assert issuer(system).json()["faults"]
        assert system.http.get("/readyz").status_code == 503
        assert system.http.get("/coupons").status_code == 503
    finally:
        system.stack.start("postgres")

    assert system.final(answer.json()["request_id"])["attempts"] == 1
    system.eventually(lambda: issuer(system).status_code == 200)


def test_without_valkey_the_database_answers(system: System) -> None:
    """Degraded and ready: requests are accepted, repeats refused, unknown coupons unknown."""
    coupon = system.make_coupon(quantity=5)
    system.stack.stop("valkey")
    try:
        answer = system.ask(coupon, 1)
        assert answer is not None
        assert answer.status_code == 202, answer.text
        assert system.final(answer.json()["request_id"])["state"] == "issued"
        again = system.ask(coupon, 1)
        assert again is not None
        assert (again.status_code, again.json()["code"]) == (409, "duplicate")
        ready = system.http.get("/readyz")
        assert (ready.status_code, ready.json()["degraded"]) == (200, ["redis"])
        unknown = system.ask(2**40, 1)
        assert unknown is not None
        assert unknown.status_code == 404
    finally:
        system.stack.start("valkey")


def test_nothing_waits_for_celery_when_valkey_was_away(system: System) -> None:
    """A hint that could not be sent is dropped, and its row is found again by the sweep."""
    coupon = system.make_coupon(quantity=1)
    log = system.stack.directory / "log" / "issuer.log"
    dropped_before = log.read_text().count("hints are lost")
    system.stack.stop("valkey")
    try:
        answer = system.ask(coupon, 1, fault="22012 1")
        assert answer is not None
        assert answer.status_code == 202, answer.text
        retrying = "SELECT count(*) FROM requests WHERE coupon_id = :id AND state = 'retrying'"
        system.eventually(lambda: system.count(retrying, id=coupon) == 1)
        system.eventually(lambda: log.read_text().count("hints are lost") > dropped_before)
    finally:
        system.stack.start("valkey")

    assert system.final(answer.json()["request_id"])["state"] == "issued"


def issuer(system: System) -> httpx.Response:
    """The issuer's readiness."""
    return httpx.get(f"{system.stack.issuer_url}/readyz")


def test_an_offset_outside_the_log_stops_its_partition_and_says_so(system: System) -> None:
    """Step 4: nothing is guessed; the others go on, and with the offset put right nothing is lost."""
    coupons = [system.make_coupon(quantity=1) for _ in range(12)]
    partitions = {coupon: partition_of(coupon, system.settings.topic_partitions) for coupon in coupons}
    stopped = partitions[coupons[0]]
    other = next(coupon for coupon in coupons if partitions[coupon] != stopped)
    move = f"UPDATE offsets SET next_offset = next_offset + :by WHERE partition = {stopped} RETURNING 1"
    system.count(move, by=1_000_000)
    try:
        system.stack.kill("issuer")
        system.eventually(lambda: "not in the log" in issuer(system).json()["faults"].get(f"partition {stopped}", ""))
        waiting, served = system.ask(coupons[0], 1), system.ask(other, 1)
        assert waiting is not None
        assert served is not None
        assert system.final(served.json()["request_id"])["state"] == "issued"
        assert system.standing(waiting.json()["request_id"])["state"] == "queued"
    finally:
        system.count(move, by=-1_000_000)
        system.stack.kill("issuer")
        system.stack.wait_up("issuer")

    assert system.final(waiting.json()["request_id"])["state"] == "issued"
