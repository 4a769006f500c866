"""What died: shown, brought back, put away; and the seats it gave up, which those on standby get in order."""

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from sqlalchemy import text

from service.domain.request import LogPosition
from service.stream.topics import MAX_RECORD_BYTES, Topic
from tests.acceptance.test_bad_http import assert_problem
from tests.acceptance.test_changes import accepted, change, refused
from tests.system import System

#: a failing request is dead after three attempts, so that the fourth, an operator's replay, succeeds
_UNTIL_REPLAYED = "22012 3"
_ALWAYS = "22012 9"
_ONCE = "22012 1"


def test_dead_letters_are_listed_by_filters_a_page_at_a_time(system: System) -> None:
    """Section 4: of a coupon, with a code, in a state; the newest first, each once."""
    coupon = system.make_coupon(quantity=5)
    die(system, coupon, 1, 2, 3)
    ids = [letter["id"] for letter in listed(system, coupon_id=coupon)]
    assert len(ids) == 3
    assert ids == sorted(ids, reverse=True)
    system.http.post(f"/dead-letters/{ids[1]}/discard")

    first = system.http.get("/dead-letters", params={"coupon_id": coupon, "limit": 2}).json()
    last = system.http.get("/dead-letters", params={"coupon_id": coupon, "limit": 2, "cursor": first["next"]}).json()

    assert [letter["id"] for page in (first, last) for letter in page["dead_letters"]] == ids
    assert last["next"] is None
    assert [letter["id"] for letter in listed(system, coupon_id=coupon, state="new")] == [ids[0], ids[2]]
    assert [letter["id"] for letter in listed(system, coupon_id=coupon, state="discarded")] == [ids[1]]
    assert [letter["id"] for letter in listed(system, coupon_id=coupon, code="exhausted")] == ids
    assert listed(system, coupon_id=coupon, code="poison") == []


def test_a_dead_letter_shows_why_and_its_record(system: System) -> None:
    """Section 4: what was asked for, how often it was tried, what went wrong first and last, the bytes as they came."""
    coupon = system.make_coupon(quantity=5)
    (name,) = die(system, coupon, 7)

    letter = system.http.get(f"/dead-letters/{only(system, coupon)}").json()

    assert (letter["request_id"], letter["coupon_id"], letter["user_id"]) == (name, coupon, 7)
    assert (letter["state"], letter["code"], letter["attempts"], letter["actions"]) == ("new", "exhausted", 3, [])
    assert letter["first_error"].startswith("psycopg.errors.DivisionByZero: ")
    record = letter["record"]
    assert f'"userId":7,"couponId":{coupon}' in record["text"]
    assert b64decode(record["value"]).decode() == record["text"]
    assert b64decode(record["key"]) == str(coupon).encode()
    assert b64decode(dict(record["headers"])["request_id"]).decode() == name


@pytest.mark.parametrize("value", [b"\xff\xfe", None])
def test_a_record_that_is_no_text_is_shown_in_base64(system: System, value: bytes | None) -> None:
    """Section 4: bytes that are not UTF-8 have no text, a record without a value has neither, and none comes back."""
    coupon = system.make_coupon(quantity=1)
    place = system.produce(coupon, value)

    letter = system.eventually(lambda: find(system, place))

    assert letter["record"]["text"] is None
    assert (b64decode(letter["record"]["value"]) if value else letter["record"]["value"]) == value
    assert (letter["code"], letter["request_id"]) == ("poison", None)
    assert_problem(system.http.post(f"/dead-letters/{letter['id']}/replay"), 409, "not_replayable")


def test_a_replay_ends_well_and_is_told(system: System) -> None:
    """Step 7: dead, its seat gone to another; the operator raises the quantity and brings it back, once."""
    coupon = system.make_coupon(quantity=1, waitlist=1)
    name = accepted(system, coupon, 1, _UNTIL_REPLAYED)
    other = accepted(system, coupon, 2)
    assert [system.final(one)["state"] for one in (name, other)] == ["dead", "issued"]
    system.eventually(lambda: system.receiver.states(name) == {"dead"})
    letter = only(system, coupon)
    change(system, coupon, quantity=2)

    first, second = (system.http.post(f"/dead-letters/{letter}/replay") for _ in range(2))

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert first.json() == {"id": letter, "request_id": name, "state": "issued", "code": None, "why": None}
    page = system.standing(name)
    assert (page["state"], page["sequence"], page["attempts"]) == ("issued", 2, 4)
    system.eventually(lambda: system.receiver.states(name) == {"dead", "issued"})
    assert system.receiver.told[name, "issued"] == 1
    shown = system.http.get(f"/dead-letters/{letter}").json()
    trail = [(done["action"], done["via"], done["state"]) for done in shown["actions"]]
    assert (shown["state"], trail) == ("replayed", [("replayed", "api", "issued")])
    assert_problem(system.http.post(f"/dead-letters/{letter}/discard"), 409, "replayed")


def test_a_replay_that_finds_no_seat_is_refused_and_told(system: System) -> None:
    """Step 7: eligibility is checked anew; the answer is final again."""
    coupon = system.make_coupon(quantity=1)
    (name,) = die(system, coupon, 1)
    system.final(press_until_accepted(system, coupon, 2))

    answer = system.http.post(f"/dead-letters/{only(system, coupon)}/replay").json()

    assert (answer["state"], answer["code"]) == ("refused", "sold_out")
    assert system.standing(name)["code"] == "sold_out"
    system.eventually(lambda: system.receiver.states(name) == {"dead", "refused"})


def test_what_is_discarded_stays_dead(system: System) -> None:
    """Step 7: put away for good; a repeat answers the same, a replay says so."""
    coupon = system.make_coupon(quantity=1)
    (name,) = die(system, coupon, 1)
    letter = only(system, coupon)

    first, second = (system.http.post(f"/dead-letters/{letter}/discard") for _ in range(2))

    assert first.json() == second.json()
    assert (first.json()["state"], len(first.json()["actions"])) == ("discarded", 1)
    assert_problem(system.http.post(f"/dead-letters/{letter}/replay"), 409, "discarded")
    assert system.standing(name)["state"] == "dead"


def test_in_bulk_a_dry_run_only_tells_and_seats_go_by_rank(system: System) -> None:
    """Step 7: three are dead and two seats are left; what the dry run says comes of it, `limit` at a time."""
    coupon = system.make_coupon(quantity=3)
    names = die(system, coupon, 1, 2, 3)
    change(system, coupon, quantity=2)

    dry = replay_many(system, coupon_id=coupon, code="exhausted", dry_run=True)
    states = [system.standing(name)["state"] for name in names]
    first = replay_many(system, coupon_id=coupon, limit=1)
    rest = replay_many(system, coupon_id=coupon)

    assert states == ["dead"] * 3
    assert first + rest == dry
    assert [(one["request_id"], one["state"], one["code"]) for one in dry] == [
        (names[0], "issued", None),
        (names[1], "issued", None),
        (names[2], "refused", "sold_out"),
    ]
    assert replay_many(system, coupon_id=coupon) == []
    assert replay_many(system, coupon_id=coupon, code="poison") == []


def test_what_is_not_there_or_not_understood_is_a_problem(system: System) -> None:
    """Section 4: unknown ids, ids in another spelling, filters and bodies that are none."""
    for method, path in (("GET", ""), ("POST", "/replay"), ("POST", "/discard")):
        assert_problem(system.http.request(method, f"/dead-letters/{2**62}{path}"), 404, "unknown_dead_letter")
        assert_problem(system.http.request(method, f"/dead-letters/01{path}"), 422, "invalid")
    for query in ("code=dead", "state=dead", "coupon_id=x", "limit=0", "limit=501", "cursor=0"):
        assert_problem(system.http.get(f"/dead-letters?{query}"), 422, "invalid")
    for body in ({"limit": 0}, {"limit": 1001}, {"code": "dead"}, {"coupon_id": "1"}, {"dry_run": 1}, {"all": True}):
        assert_problem(system.http.post("/dead-letters/replay", json=body), 422, "invalid")


def test_more_deaths_than_are_usual_raise_an_alert_and_stop_nothing(system: System) -> None:
    """Step 7: both processes say so and stay ready, the log once, the metric while it lasts; then it is over."""
    coupon = system.make_coupon(quantity=1)
    forget_deaths(system)
    system.eventually(lambda: alerts(system) == [{}, {}])
    log = system.stack.directory / "log" / "issuer.log"
    said_before = log.read_text().count("alert dead_letters")

    for _ in range(system.settings.dead_letters_per_minute + 1):
        system.produce(coupon, b"poison")

    system.eventually(lambda: all("dead_letters" in told for told in alerts(system)))
    assert metric(system, 'coupons_alert_active{alert="dead_letters"}') == 1
    assert system.final(accepted(system, coupon, 1))["state"] == "issued"
    forget_deaths(system)
    system.eventually(lambda: alerts(system) == [{}, {}])
    assert metric(system, 'coupons_alert_active{alert="dead_letters"}') == 0
    said = [line for line in log.read_text().splitlines() if "alert dead_letters" in line][said_before:]
    assert ["died in the last minute" in line for line in said] == [True, False]


def test_nothing_waits_for_the_dead_letter_topic(system: System) -> None:
    """Step 7: while it takes nothing, requests die, seats go on and notices are sent; then all is forwarded."""
    coupon = system.make_coupon(quantity=1, waitlist=1)
    with unwritable(system):
        failing = accepted(system, coupon, 1, _ALWAYS)
        behind = accepted(system, coupon, 2)
        assert [system.final(one)["state"] for one in (failing, behind)] == ["dead", "issued"]
        system.eventually(lambda: system.receiver.states(failing) == {"dead"})
        letter = system.http.get(f"/dead-letters/{only(system, coupon)}").json()
        log = system.stack.directory / "log" / "worker.log"
        system.eventually(lambda: f"wait to be forwarded: letter {letter['id']}: " in log.read_text())
        assert letter["forwarded_at"] is None
        assert system.http.get("/readyz").status_code == 200

    system.eventually(lambda: system.http.get(f"/dead-letters/{letter['id']}").json()["forwarded_at"])
    heard = "SELECT count(dlt_offset) FROM dead_letters WHERE request_id = :name"
    system.eventually(lambda: system.count(heard, name=failing) == 1)


def test_a_seat_that_is_given_up_goes_to_the_next_in_line(system: System) -> None:
    """P5: the gate lets quantity and waitlist in; nobody behind a held seat hears "sold out" before it is decided."""
    coupon = system.make_coupon(quantity=2, waitlist=2)
    failing = accepted(system, coupon, 1, _ALWAYS)
    seated, first, second = (accepted(system, coupon, user) for user in (2, 3, 4))
    assert refused(system, coupon, 5) == "sold_out"

    dead, issued, promoted, last = (system.final(one) for one in (failing, seated, first, second))

    assert (dead["state"], issued["sequence"], promoted["sequence"]) == ("dead", 1, 2)
    assert (last["state"], last["code"]) == ("refused", "sold_out")
    assert last["decided_at"] >= dead["decided_at"]
    system.eventually(lambda: system.receiver.states(second) == {"refused"})
    assert system.http.get(f"/coupons/{coupon}").json()["state"] == "sold_out"


def test_a_promotion_may_fail_and_is_held_in_its_turn(system: System) -> None:
    """P5: the seat of the dead passes to one who fails once, too; whoever waits behind it waits on."""
    coupon = system.make_coupon(quantity=1, waitlist=2)
    names = [accepted(system, coupon, user, fault) for user, fault in ((1, _ALWAYS), (2, _ONCE), (3, None))]

    pages = [system.final(name) for name in names]

    assert [page["state"] for page in pages] == ["dead", "issued", "refused"]
    assert (pages[1]["attempts"], pages[1]["sequence"]) == (2, 1)
    assert pages[2]["decided_at"] >= pages[1]["decided_at"]


def die(system: System, coupon: int, *users: int) -> list[str]:
    """The request ids of requests that have died and been told so; an operator's replay would succeed."""
    names = [accepted(system, coupon, user, _UNTIL_REPLAYED) for user in users]
    assert [system.final(name)["state"] for name in names] == ["dead"] * len(users)
    system.eventually(lambda: all(system.receiver.states(name) == {"dead"} for name in names))
    return names


def listed(system: System, **filters: Any) -> list[dict[str, Any]]:
    """One page of dead letters."""
    answer = system.http.get("/dead-letters", params=filters)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["dead_letters"])


def only(system: System, coupon: int) -> int:
    """The id of the coupon's only dead letter."""
    (letter,) = listed(system, coupon_id=coupon)
    return int(letter["id"])


def find(system: System, log_position: LogPosition) -> dict[str, Any] | None:
    """The dead letter of a record, once it is there; poison belongs to no coupon."""
    found = listed(system, code="poison", limit=20)
    return next((letter for letter in found if (letter["partition"], letter["offset"]) == log_position), None)


def press_until_accepted(system: System, coupon: int, user: int) -> str:
    """The request id of a user who asks until a seat has come back."""
    answer = system.eventually(
        lambda: answer if (answer := system.ask(coupon, user)) and answer.status_code == 202 else None
    )
    return str(answer.json()["request_id"])


def replay_many(system: System, **meant: Any) -> list[dict[str, Any]]:
    """What came of a replay in bulk, or would."""
    answer = system.http.post("/dead-letters/replay", json=meant)
    assert answer.status_code == 200, answer.text
    assert answer.json()["dry_run"] is meant.get("dry_run", False)
    return list(answer.json()["replayed"])


def alerts(system: System) -> list[dict[str, str]]:
    """The alerts of the API and of the issuer, which must both be ready."""
    answers = [httpx.get(f"{url}/readyz") for url in (system.stack.api_url, system.stack.issuer_url)]
    assert [answer.status_code for answer in answers] == [200, 200]
    return [answer.json()["alerts"] for answer in answers]


def metric(system: System, name: str) -> float:
    """One number of the issuer's."""
    lines = httpx.get(f"{system.stack.issuer_url}/metrics").text.splitlines()
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def forget_deaths(system: System) -> None:
    """Makes every death one of two minutes ago."""
    with system.store.begin() as tx:
        tx.execute(text("UPDATE dead_letters SET dead_at = dead_at - interval '2 minutes'"))


@contextmanager
def unwritable(system: System) -> Iterator[None]:
    """The dead-letter topic takes no record, as long as the block runs: each is longer than it allows."""
    allow_bytes(system, 1)
    try:
        yield
    finally:
        allow_bytes(system, MAX_RECORD_BYTES[Topic.DEAD_LETTERS])


def allow_bytes(system: System, most: int) -> None:
    """Sets how long a record of the dead-letter topic may be."""
    admin = AdminClient({"bootstrap.servers": system.stack.kafka_bootstrap_servers})
    entry = ConfigEntry("max.message.bytes", str(most), incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ResourceType.TOPIC, Topic.DEAD_LETTERS.value, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([topic]).values():
        future.result(10)
