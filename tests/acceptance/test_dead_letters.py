"""Dead letters listed, shown, replayed and discarded; their seats go to standby requests in order."""

import re
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
from service.gate.keys import QUEUED_TASK_PREFIX
from service.limits import MAX_DEAD_LETTER_BYTES
from service.log_events import LogEvent
from service.stream.topics import Topic
from tests import task_sources
from tests.acceptance.test_bad_http import assert_problem
from tests.acceptance.test_changes import accepted, change, refused
from tests.system import System
from workers.queues import MessageSource, Task

#: fails three times, so that the request is dead, and the fourth attempt, an operator's replay, succeeds
_UNTIL_REPLAYED = "22012 3"
_ALWAYS = "22012 9"
_ONCE = "22012 1"


def test_dead_letters_are_listed_by_filter_and_page(system: System) -> None:
    """Filter by coupon, code and state; the newest first, each once, without their records."""
    coupon = system.make_coupon(quantity=5)
    make_dead(system, coupon, 1, 2, 3)
    ids = [dead_letter["id"] for dead_letter in listed(system, coupon_id=coupon)]
    assert len(ids) == 3
    assert ids == sorted(ids, reverse=True)
    assert not {"record", "actions"} & listed(system, coupon_id=coupon)[0].keys()
    system.http.post(f"/dead-letters/{ids[1]}/discard")

    first = system.http.get("/dead-letters", params={"coupon_id": coupon, "limit": 2})
    last = system.http.get(first.url.join(first.links["next"]["url"]))

    pages = [first.json(), last.json()]
    assert [dead_letter["id"] for page in pages for dead_letter in page["dead_letters"]] == ids
    assert first.links["next"]["url"].endswith(f"cursor={pages[0]['next']}")
    assert (pages[1]["next"], last.links) == (None, {})
    assert [dead_letter["id"] for dead_letter in listed(system, coupon_id=coupon, state="new")] == [ids[0], ids[2]]
    assert [dead_letter["id"] for dead_letter in listed(system, coupon_id=coupon, state="discarded")] == [ids[1]]
    assert [dead_letter["id"] for dead_letter in listed(system, coupon_id=coupon, code="exhausted")] == ids
    assert listed(system, coupon_id=coupon, code="poison") == []


def test_a_dead_letter_shows_its_cause_and_its_record(system: System) -> None:
    """The request, the attempts, the first and last error, the record's original bytes."""
    coupon = system.make_coupon(quantity=5)
    (name,) = make_dead(system, coupon, 7)

    dead_letter = system.http.get(f"/dead-letters/{only_dead_letter(system, coupon)}").json()

    assert (dead_letter["request_id"], dead_letter["coupon_id"], dead_letter["user_id"]) == (name, coupon, 7)
    assert (dead_letter["state"], dead_letter["code"], dead_letter["attempts"], dead_letter["actions"]) == (
        "new",
        "exhausted",
        3,
        [],
    )
    assert dead_letter["first_error"].startswith("psycopg.errors.DivisionByZero: ")
    record = dead_letter["record"]
    assert f'"userId":7,"couponId":{coupon}' in record["text"]
    assert b64decode(record["value"]).decode() == record["text"]
    assert b64decode(record["key"]) == str(coupon).encode()
    assert b64decode(dict(record["headers"])["request_id"]).decode() == name


@pytest.mark.parametrize("value", [b"\xff\xfe", None])
def test_a_binary_record_is_shown_in_base64(system: System, value: bytes | None) -> None:
    """Bytes that are not UTF-8 have no text, a missing value has neither text nor bytes; neither can be replayed."""
    coupon = system.make_coupon(quantity=1)
    position = system.produce(coupon, value)

    dead_letter = system.eventually(lambda: find_dead_letter(system, position))

    assert dead_letter["record"]["text"] is None
    assert (b64decode(dead_letter["record"]["value"]) if value else dead_letter["record"]["value"]) == value
    assert (dead_letter["code"], dead_letter["request_id"]) == ("poison", None)
    assert_problem(system.http.post(f"/dead-letters/{dead_letter['id']}/replay"), 409, "not_replayable")


def test_a_replay_issues_and_sends_a_notice(system: System) -> None:
    """The seat of a dead request went to another; after a raised quantity a replay issues it, once."""
    coupon = system.make_coupon(quantity=1, waitlist=1)
    name = accepted(system, coupon, 1, _UNTIL_REPLAYED)
    other = accepted(system, coupon, 2)
    assert [system.wait_until_final(request_id)["state"] for request_id in (name, other)] == ["dead", "issued"]
    system.eventually(lambda: set(system.receiver.states(name)) == {"dead"})
    dead_letter_id = only_dead_letter(system, coupon)
    change(system, coupon, quantity=2)

    first, second = (system.http.post(f"/dead-letters/{dead_letter_id}/replay") for _ in range(2))

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert first.json() == {"id": dead_letter_id, "request_id": name, "state": "issued", "code": None, "why": None}
    page = system.read_status(name)
    assert (page["state"], page["sequence"], page["attempts"]) == ("issued", 2, 4)
    system.eventually(lambda: set(system.receiver.states(name)) == {"dead", "issued"})
    assert system.receiver.decisions[name, "issued"] == 1
    shown = system.http.get(f"/dead-letters/{dead_letter_id}").json()
    trail = [(action["action"], action["acted_by"], action["state"]) for action in shown["actions"]]
    assert (shown["state"], trail) == ("replayed", [("replayed", "authentication off", "issued")])
    assert_problem(system.http.post(f"/dead-letters/{dead_letter_id}/discard"), 409, "replayed")


def test_the_notice_of_a_replay_does_not_wait_for_the_sweep(system: System) -> None:
    """The API does not load Celery: an issuer sends the task, at once, and the broker delivers it."""
    coupon = system.make_coupon(quantity=2)
    (name,) = make_dead(system, coupon, 1)
    system.eventually(lambda: set(system.receiver.states(name)) == {"dead"})
    # otherwise the run that delivered this notice may deliver the next one too, and no task is sent
    system.eventually(lambda: not system.redis.exists(QUEUED_TASK_PREFIX + Task.NOTIFY))
    before = task_sources.tasks(system)[MessageSource.BROKER, Task.NOTIFY]

    replayed = system.http.post(f"/dead-letters/{only_dead_letter(system, coupon)}/replay")

    assert replayed.json()["state"] == "issued"
    system.eventually(lambda: task_sources.tasks(system)[MessageSource.BROKER, Task.NOTIFY] > before)
    system.eventually(lambda: set(system.receiver.states(name)) == {"dead", "issued"})


def test_a_replay_without_a_free_seat_is_refused_and_sends_a_notice(system: System) -> None:
    """A replay checks the eligibility again; the new state is final."""
    coupon = system.make_coupon(quantity=1)
    (name,) = make_dead(system, coupon, 1)
    system.wait_until_final(submit_until_accepted(system, coupon, 2))

    answer = system.http.post(f"/dead-letters/{only_dead_letter(system, coupon)}/replay").json()

    assert (answer["state"], answer["code"]) == ("refused", "sold_out")
    assert system.read_status(name)["code"] == "sold_out"
    system.eventually(lambda: set(system.receiver.states(name)) == {"dead", "refused"})


def test_a_discarded_request_stays_dead(system: System) -> None:
    """A discard is final: a repeat gets the same answer, a replay is refused."""
    coupon = system.make_coupon(quantity=1)
    (name,) = make_dead(system, coupon, 1)
    dead_letter_id = only_dead_letter(system, coupon)

    first, second = (system.http.post(f"/dead-letters/{dead_letter_id}/discard") for _ in range(2))

    assert first.json() == second.json()
    assert (first.json()["state"], len(first.json()["actions"])) == ("discarded", 1)
    assert_problem(system.http.post(f"/dead-letters/{dead_letter_id}/replay"), 409, "discarded")
    assert system.read_status(name)["state"] == "dead"


def test_a_bulk_replay_does_what_its_dry_run_says_in_order(system: System) -> None:
    """Three requests are dead and two seats are free: replays of some of them do what the dry run of all says."""
    coupon = system.make_coupon(quantity=3)
    names = make_dead(system, coupon, 1, 2, 3)
    change(system, coupon, quantity=2)

    dry = replay_many(system, coupon_id=coupon, code="exhausted", dry_run=True)
    states = [system.read_status(name)["state"] for name in names]
    assert replay_many(system, ids=[dry[0]["id"]], code="poison") == []
    first = replay_many(system, ids=[dry[0]["id"], 2**53 - 1])
    limited = replay_many(system, coupon_id=coupon, limit=1)
    rest = replay_many(system, ids=[item["id"] for item in dry])

    assert states == ["dead"] * 3
    assert first + limited + rest == dry
    assert [(item["request_id"], item["state"], item["code"]) for item in dry] == [
        (names[0], "issued", None),
        (names[1], "issued", None),
        (names[2], "refused", "sold_out"),
    ]
    assert replay_many(system, coupon_id=coupon) == []
    assert replay_many(system, coupon_id=coupon, code="poison") == []


def test_unknown_ids_and_invalid_input_are_problems(system: System) -> None:
    """Unknown ids, ids that are not plain decimals, invalid filters and bodies."""
    for method, path in (("GET", ""), ("POST", "/replay"), ("POST", "/discard")):
        assert_problem(system.http.request(method, f"/dead-letters/{2**62}{path}"), 404, "unknown_dead_letter")
        assert_problem(system.http.request(method, f"/dead-letters/01{path}"), 422, "invalid")
    for query in ("code=sold_out", "state=dead", "coupon_id=x", "limit=0", "limit=501", "cursor=0", "coupon=1"):
        assert_problem(system.http.get(f"/dead-letters?{query}"), 422, "invalid")
    for body in ({"limit": 0}, {"limit": 1001}, {"code": "dead"}, {"coupon_id": "1"}, {"dry_run": 1}, {"all": True}):
        assert_problem(system.http.post("/dead-letters/replay", json=body), 422, "invalid")
    for ids in ([], [0], ["1"], [1.0], 1, list(range(1, 1002))):
        assert_problem(system.http.post("/dead-letters/replay", json={"ids": ids}), 422, "invalid")


def test_many_dead_letters_raise_an_alert_and_stop_nothing(system: System) -> None:
    """Both processes report the alert and stay ready; it is logged once, and the metric is 1 until it is cleared."""
    coupon = system.make_coupon(quantity=1)
    backdate_dead_letters(system)
    system.eventually(lambda: alerts(system) == [{}, {}])
    log = system.stack.directory / "log" / "issuer.log"
    before = log.read_text().count("alert=dead_letters")

    for _ in range(system.settings.dead_letters_per_minute + 1):
        system.produce(coupon, b"poison")

    system.eventually(lambda: all("dead_letters" in active for active in alerts(system)))
    assert metric(system, 'coupons_alert_active{alert="dead_letters"}') == 1
    assert system.wait_until_final(accepted(system, coupon, 1))["state"] == "issued"
    backdate_dead_letters(system)
    system.eventually(lambda: alerts(system) == [{}, {}])
    assert metric(system, 'coupons_alert_active{alert="dead_letters"}') == 0
    lines = [line for line in log.read_text().splitlines() if "alert=dead_letters" in line][before:]
    assert [(LogEvent.ALERT_RAISED in line, LogEvent.ALERT_CLEARED in line) for line in lines] == [
        (True, False),
        (False, True),
    ]
    assert ["became dead in the last minute" in line for line in lines] == [True, False]


def test_nothing_waits_for_the_dead_letter_topic(system: System) -> None:
    """While the topic refuses records, requests become dead, their seats are reassigned; later all is forwarded."""
    coupon = system.make_coupon(quantity=1, waitlist=1)
    with dead_letter_topic_refuses(system):
        failing = accepted(system, coupon, 1, _ALWAYS)
        behind = accepted(system, coupon, 2)
        assert [system.wait_until_final(name)["state"] for name in (failing, behind)] == ["dead", "issued"]
        system.eventually(lambda: set(system.receiver.states(failing)) == {"dead"})
        dead_letter = system.http.get(f"/dead-letters/{only_dead_letter(system, coupon)}").json()
        log = system.stack.directory / "log" / "worker.log"
        not_forwarded = re.compile(rf"{re.escape(LogEvent.DEAD_LETTERS_NOT_FORWARDED)} .*letter {dead_letter['id']}: ")
        system.eventually(lambda: not_forwarded.search(log.read_text()))
        assert dead_letter["forwarded_at"] is None
        assert system.http.get("/readyz").status_code == 200

    system.eventually(lambda: system.http.get(f"/dead-letters/{dead_letter['id']}").json()["forwarded_at"])
    received = "SELECT count(dlt_offset) FROM dead_letters WHERE request_id = :name"
    system.eventually(lambda: system.count(received, name=failing) == 1)


def test_a_freed_seat_goes_to_the_first_standby_request(system: System) -> None:
    """P5: the gate admits quantity plus waitlist; no request is refused `sold_out` while an earlier seat is held."""
    coupon = system.make_coupon(quantity=2, waitlist=2)
    failing = accepted(system, coupon, 1, _ALWAYS)
    seated, first, second = (accepted(system, coupon, user) for user in (2, 3, 4))
    assert refused(system, coupon, 5) == "sold_out"

    dead, issued, promoted, last = (system.wait_until_final(name) for name in (failing, seated, first, second))

    assert (dead["state"], issued["sequence"], promoted["sequence"]) == ("dead", 1, 2)
    assert (last["state"], last["code"]) == ("refused", "sold_out")
    assert last["decided_at"] >= dead["decided_at"]
    system.eventually(lambda: set(system.receiver.states(second)) == {"refused"})
    assert system.http.get(f"/coupons/{coupon}").json()["state"] == "sold_out"


def test_a_promotion_that_fails_is_held_and_retried(system: System) -> None:
    """P5: the released seat goes to a standby request that also fails once; the next one stays on standby."""
    coupon = system.make_coupon(quantity=1, waitlist=2)
    names = [accepted(system, coupon, user, fault) for user, fault in ((1, _ALWAYS), (2, _ONCE), (3, None))]

    pages = [system.wait_until_final(name) for name in names]

    assert [page["state"] for page in pages] == ["dead", "issued", "refused"]
    assert (pages[1]["attempts"], pages[1]["sequence"]) == (2, 1)
    assert pages[2]["decided_at"] >= pages[1]["decided_at"]


def make_dead(system: System, coupon: int, *users: int) -> list[str]:
    """Make the users' requests dead, and wait for their notices; return their ids. A replay would succeed."""
    names = [accepted(system, coupon, user, _UNTIL_REPLAYED) for user in users]
    assert [system.wait_until_final(name)["state"] for name in names] == ["dead"] * len(users)
    system.eventually(lambda: all(set(system.receiver.states(name)) == {"dead"} for name in names))
    return names


def listed(system: System, **filters: Any) -> list[dict[str, Any]]:
    """Return one page of dead letters."""
    answer = system.http.get("/dead-letters", params=filters)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["dead_letters"])


def only_dead_letter(system: System, coupon: int) -> int:
    """Return the id of the coupon's only dead letter."""
    (dead_letter,) = listed(system, coupon_id=coupon)
    return int(dead_letter["id"])


def find_dead_letter(system: System, log_position: LogPosition) -> dict[str, Any] | None:
    """Return the dead letter of a poison record, or None; poison belongs to no coupon."""
    for dead_letter in listed(system, code="poison", limit=20):
        if (dead_letter["partition"], dead_letter["offset"]) == log_position:
            return dict(system.http.get(f"/dead-letters/{dead_letter['id']}").json())
    return None


def submit_until_accepted(system: System, coupon: int, user: int) -> str:
    """Send a user's request until a seat is free; return the request id."""
    answer = system.eventually(
        lambda: answer if (answer := system.request_issuance(coupon, user)) and answer.status_code == 202 else None
    )
    return str(answer.json()["request_id"])


def replay_many(system: System, **options: Any) -> list[dict[str, Any]]:
    """Replay in bulk or dry-run; return the results."""
    answer = system.http.post("/dead-letters/replay", json=options)
    assert answer.status_code == 200, answer.text
    assert answer.json()["dry_run"] is options.get("dry_run", False)
    return list(answer.json()["replayed"])


def alerts(system: System) -> list[dict[str, str]]:
    """Return the alerts of the API and of the issuer; both must be ready."""
    urls = system.stack.api_url, system.stack.issuer_url
    answers = [httpx.get(f"{url}/readyz", auth=system.credentials) for url in urls]
    assert [answer.status_code for answer in answers] == [200, 200]
    return [answer.json()["alerts"] for answer in answers]


def metric(system: System, name: str) -> float:
    """Return the value of one of the issuer's metrics."""
    lines = httpx.get(f"{system.stack.issuer_url}/metrics", auth=system.credentials).text.splitlines()
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def backdate_dead_letters(system: System) -> None:
    """Move the time of every dead letter back by two minutes."""
    with system.store.begin() as tx:
        tx.execute(text("UPDATE dead_letters SET dead_at = dead_at - interval '2 minutes'"))


@contextmanager
def dead_letter_topic_refuses(system: System) -> Iterator[None]:
    """Make the dead-letter topic refuse every record as too long during the block."""
    set_max_dead_letter_bytes(system, 1)
    try:
        yield
    finally:
        set_max_dead_letter_bytes(system, MAX_DEAD_LETTER_BYTES)


def set_max_dead_letter_bytes(system: System, max_bytes: int) -> None:
    """Set the maximum record size of the dead-letter topic."""
    admin = AdminClient({"bootstrap.servers": system.stack.kafka_bootstrap_servers})
    entry = ConfigEntry("max.message.bytes", str(max_bytes), incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ResourceType.TOPIC, Topic.DEAD_LETTERS.value, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([topic]).values():
        future.result(10)
