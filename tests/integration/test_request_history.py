"""What the history of a request says, and to whom."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from service.config import Settings
from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon
from service.domain.errors import Unavailable
from service.domain.request_history import HistoryEventKind
from service.stream.codec import RecordReader
from service.usecases.lookup import Lookup
from service.usecases.notify import deliver_notices
from service.usecases.replay import DeadLetterService
from service.usecases.request_history import RequestHistory, RequestHistoryReader
from service.webhooks.sender import WebhookSender
from testkit.webhook_receiver import WebhookReceiver
from tests.fixtures.callers import bearer, token
from tests.fixtures.parts import WEBHOOK_SECRET
from tests.integration.conftest import Query
from tests.log import Log

MakeCoupon = Callable[..., Coupon]
Read = Callable[[str], RequestHistory]


@pytest.fixture
def read(lookup: Lookup, settings: Settings, store: Engine, reader: RecordReader) -> Read:
    """Return the history of a request, as an operator gets it."""
    histories = RequestHistoryReader(settings, store, reader)
    return lambda request_id: histories.read(lookup.find(request_id), with_log=True)


@pytest.fixture
def make_dead(real_log: Log, make_coupon: MakeCoupon, exhaust_retries: Callable[[], None]) -> str:
    """The id of a request of user 7 that is dead; a replay succeeds."""
    name = real_log.append_request(make_coupon(quantity=1).id, 7, fault="22012 3")
    real_log.issue()
    exhaust_retries()
    return name


def _kinds(history: RequestHistory) -> list[str]:
    return [event.kind.value for event in history.events]


def test_a_request_that_is_issued_at_once(read: Read, real_log: Log, make_coupon: MakeCoupon) -> None:
    """No table stores when its record was appended: that is read from the log."""
    name = real_log.append_request(make_coupon().id, 7)
    queued = read(name)
    (record,) = real_log.undecided()
    real_log.issue()
    issued = read(name)

    assert _kinds(queued) == ["requested"]
    assert _kinds(issued) == ["requested", "appended", "decided"]
    appended, decided = issued.events[1:]
    assert (appended.partition, appended.offset) == record.raw.log_position
    assert appended.at
    assert appended.at.timestamp() == record.raw.appended_at_ms / 1000
    assert (decided.state, decided.code, decided.sequence) == ("issued", None, 1)


def test_a_request_that_is_refused(read: Read, real_log: Log, make_coupon: MakeCoupon) -> None:
    coupon = make_coupon(quantity=1)
    real_log.append_request(coupon.id, 6)
    name = real_log.append_request(coupon.id, 7)
    real_log.issue()

    decided = read(name).events[-1]

    assert (decided.kind, decided.state, decided.code) == ("decided", "refused", "sold_out")


def test_every_attempt_keeps_its_error(read: Read, make_dead: str, dead_letter_service: DeadLetterService) -> None:
    """A replay goes on counting, and what was before it stays: the attempts, and that the request was dead."""
    dead = read(make_dead)
    dead_letter_service.acting_as("key ops").replay(1)
    issued = read(make_dead)

    attempts = [event for event in issued.events if event.kind is HistoryEventKind.ATTEMPT_FAILED]
    assert [event.attempt for event in attempts] == [1, 2, 3]
    errors = [event.error or "" for event in attempts]
    assert all(error.startswith("psycopg.errors.DivisionByZero: an injected fault") for error in errors), errors
    assert _kinds(dead) == ["requested", "appended", *["attempt_failed"] * 3, "decided"]
    assert issued.events[:6] == dead.events
    replayed, decided = issued.events[6:]
    assert (replayed.kind, replayed.by, replayed.state, replayed.dead_letter_id) == ("replayed", "key ops", "issued", 1)
    assert (decided.kind, decided.state, decided.sequence) == ("decided", "issued", 1)


def test_a_request_that_dies_again(
    read: Read,
    real_log: Log,
    make_coupon: MakeCoupon,
    exhaust_retries: Callable[[], None],
    dead_letter_service: DeadLetterService,
) -> None:
    """Six attempts, two deaths, one replay that held its seat, and the discard."""
    name = real_log.append_request(make_coupon().id, 7, fault="22012 9")
    real_log.issue()
    exhaust_retries()
    dead_letter_service.replay(1)
    exhaust_retries()
    dead_letter_service.discard(1)

    history = read(name)

    died = [*["attempt_failed"] * 3, "decided"]
    again = ["replayed", *died, "discarded"]
    assert _kinds(history) == ["requested", "appended", *died, *again]
    assert [event.attempt for event in history.events if event.attempt] == [1, 2, 3, 4, 5, 6]
    assert [event.state for event in history.events if event.state] == ["dead", "retrying", "dead"]


def test_a_standby_request_whose_promotion_fails_counts_from_one(
    read: Read, real_log: Log, make_coupon: MakeCoupon, exhaust_retries: Callable[[], None]
) -> None:
    """Waiting for a seat is no attempt."""
    coupon = make_coupon(quantity=1, waitlist=1)
    real_log.append_request(coupon.id, 6, fault="22012 9")
    name = real_log.append_request(coupon.id, 7, fault="22012 1")
    real_log.issue()
    exhaust_retries()

    failed = read(name).events[-1]

    assert (failed.kind, failed.attempt) == ("attempt_failed", 1)


def test_a_notice_is_shown_with_its_last_failure_and_its_answer(
    read: Read, make_dead: str, store: Engine, query: Query
) -> None:
    with WebhookReceiver(WEBHOOK_SECRET) as receiver:
        receiver.response_status = 503
        _deliver(store, receiver, query, fails=True)
        failed = read(make_dead).events[-1]
        receiver.response_status = 202
        _deliver(store, receiver, query)
        events = read(make_dead).events[-2:]

    assert (failed.kind, failed.attempt) == ("notice_failed", 1)
    assert failed.error == "the webhook's receiver is unavailable: it answered 503 Service Unavailable"
    assert [event.kind.value for event in events] == ["notice_failed", "notice_delivered"]
    assert events[0] == failed
    assert (events[1].attempt, events[1].status, events[1].delivery_id) == (2, 202, failed.delivery_id)
    assert query("SELECT count(*) FROM outbox WHERE kind = 'notify'") == [(0,)]


def test_a_notice_after_a_replay_does_not_announce_the_death_before(
    read: Read, make_dead: str, dead_letter_service: DeadLetterService, store: Engine, query: Query
) -> None:
    """The entry of the first decision covers the request too, and the receiver learns of the second one only."""
    dead_letter_service.replay(1)
    with WebhookReceiver(WEBHOOK_SECRET) as receiver:
        while query("SELECT 1 FROM outbox WHERE kind = 'notify'"):
            _deliver(store, receiver, query)
        states = receiver.states(make_dead)

    assert states == ["issued"]
    assert _kinds(read(make_dead)).count("notice_delivered") == 1


def _deliver(store: Engine, receiver: WebhookReceiver, query: Query, *, fails: bool = False) -> None:
    """Deliver the notices that are in the outbox, with a sender of their own."""
    query("UPDATE outbox SET next_attempt_at = now() RETURNING 1")
    sender = WebhookSender(receiver.url, WEBHOOK_SECRET, 2.0)
    try:
        if fails:
            with pytest.raises(Unavailable):
                deliver_notices(store, sender, 7.5)
        else:
            assert deliver_notices(store, sender, 7.5) > 0
    finally:
        sender.close()


def test_a_user_is_told_neither_errors_nor_who_acted(
    api: httpx.Client,
    keys: dict[Role, NewKey],
    make_dead: str,
    dead_letter_service: DeadLetterService,
    store: Engine,
    query: Query,
) -> None:
    """The user and the back end see what became of the request; operators see everything; others see nothing."""
    dead_letter_service.acting_as("key ops").replay(1)
    with WebhookReceiver(WEBHOOK_SECRET) as receiver:
        while query("SELECT 1 FROM outbox WHERE kind = 'notify'"):
            _deliver(store, receiver, query)

    def history(credentials: str, status: int = 200) -> Any:
        response = api.get(f"/issuances/{make_dead}/history", headers=bearer(credentials))
        assert response.status_code == status, response.text
        assert response.headers["Cache-Control"] == "no-store"
        return response.json()

    of_user, of_back_end = history(token()), history(keys[Role.ON_BEHALF].text)
    of_operator = history(keys[Role.READ].text)
    history(token("8"), 404)

    assert of_user == of_back_end
    kinds = [event["kind"] for event in of_user["events"]]
    assert kinds == ["requested", "appended", *["attempt_failed"] * 3, "decided", "replayed", "decided"]
    fields = {name for event in of_user["events"] for name in event}
    assert fields == {"kind", "at", "partition", "offset", "attempt", "state", "code", "sequence"}
    shown = {name for event in of_operator["events"] for name in event}
    assert shown >= {"error", "by", "dead_letter_id", "delivery_id", "status"}


def test_a_request_that_does_not_fail_costs_no_statement_more(
    real_log: Log, make_coupon: MakeCoupon, statements: list[str]
) -> None:
    real_log.append_request(make_coupon().id, 7)
    real_log.issue()

    assert not [statement for statement in statements if "failed_attempts" in statement]
