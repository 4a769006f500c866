"""The messages that are sent to Celery: who sent one, what it asks for, and its description in Flower."""

from typing import Any

import pytest
from celery.app.task import Context

from service.domain.failures import Failure, FailureClass
from service.domain.request import LogPosition
from service.gate.client import build_client
from service.gate.gate_admin import GateAdmin
from service.store.outbox import OutboxKind
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION
from service.usecases.follow_up import FollowUp
from service.usecases.write_plan import HeldFailure, IssueResult
from workers import descriptions, messages
from workers.queues import MessageSource, Task

#: no server listens there
_NO_REDIS = "redis://127.0.0.1:9/0"
DIVISION = Failure(FailureClass.RECORD, "psycopg.errors.DivisionByZero", "division by zero")


class FakeCelery:
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send_task(self, name: str, args: tuple[Any, ...], **options: Any) -> None:
        """Keeps one message."""
        self.sent.append({"name": name, "args": args, **options})

    @property
    def described(self) -> list[tuple[str, str, str]]:
        """Task, work and reason of each message."""
        return [(message["name"], message["argsrepr"], message["kwargsrepr"]) for message in self.sent]


@pytest.fixture
def app() -> Any:
    """A Celery that sends nothing."""
    return FakeCelery()


@pytest.mark.parametrize(
    ("request_", "source"),
    [
        (Context(source="sweep", retries=0), MessageSource.SWEEP),
        (Context(source="broker", retries=0), MessageSource.BROKER),
        (Context(retries=0), MessageSource.BROKER),
        (Context(source="sweep", retries=1), MessageSource.BROKER),
    ],
    ids=["sent again by the sweep", "sent by the issuer", "sent by beat", "Celery's own retry of a swept one"],
)
def test_a_running_task_shows_who_sent_its_message(request_: Context, source: MessageSource) -> None:
    """A retry inherits the first message's header, but it is the broker that brought it."""
    assert messages.source_of(request_) is source


def test_a_retry_is_described_by_coupon_requests_attempt_and_reason(app: Any) -> None:
    """A person reads in Flower what is retried and why."""
    held = [LogPosition(1, offset) for offset in (240001, 240007, 240050)]

    messages.send_retry(app, 5, held, 1, failures=dict.fromkeys(held, HeldFailure(42, DIVISION)))

    (message,) = app.sent
    assert message["argsrepr"] == "3 requests of coupon 42, attempt 2 of 3 (partition 1, offsets 240001-240050)"
    assert message["kwargsrepr"] == "after DivisionByZero: division by zero"
    assert message["args"] == (5, [[1, 240001], [1, 240007], [1, 240050]], 1)
    assert message["headers"] == {"source": "broker"}
    assert message["countdown"] == 1


def test_a_retry_from_the_sweep_is_due_at_once_and_described_as_such(app: Any) -> None:
    """The sweep has positions only; its message says that it replaces another."""
    messages.send_retry(app, 5, [LogPosition(0, 7)], 2, source=MessageSource.SWEEP)

    (message,) = app.sent
    assert message["argsrepr"] == "1 request, attempt 3 of 3 (partition 0, offset 7)"
    assert message["kwargsrepr"] == "overdue, sent again by the sweep"
    assert (message["countdown"], message["headers"]) == (None, {"source": "sweep"})


def test_many_requests_are_sent_and_described_in_several_messages(app: Any) -> None:
    """Each message describes its own part, with the coupons of that part only."""
    held = [LogPosition(0, offset) for offset in range(MAX_FAILURES_PER_TRANSACTION + 1)]
    failures = {at: HeldFailure(1 if at.offset < MAX_FAILURES_PER_TRANSACTION else 2, DIVISION) for at in held}

    messages.send_retry(app, 5, held, 1, failures=failures)

    assert [work.partition(",")[0] for _, work, _ in app.described] == [
        f"{MAX_FAILURES_PER_TRANSACTION} requests of coupon 1",
        "1 request of coupon 2",
    ]


def test_a_description_of_many_coupons_partitions_and_reasons_stays_short() -> None:
    """The first reason is given, its first line cut to 120 characters; the others are counted."""
    held = [LogPosition(coupon % 2, coupon) for coupon in range(1, 6)]
    failures = {
        at: HeldFailure(at.offset, Failure(FailureClass.RECORD, "E", f"{at.offset} " + "x" * 500 + "\nCONTEXT: y"))
        for at in held
    }

    assert descriptions.describe_retry(held, 1, failures) == (
        "5 requests of coupon 1, 2, 3, ..., attempt 2 of 3 (partition 0, offsets 2-4; partition 1, offsets 1-5)",
        f"after E: 1 {'x' * 112}..., and 4 other errors",
    )


def test_an_attempt_that_a_system_failure_ended_is_described_without_a_new_number() -> None:
    """No attempt is counted."""
    away = Failure(FailureClass.SYSTEM, "service.domain.errors.Unavailable", "PostgreSQL is away")

    assert descriptions.describe_uncounted_retry([LogPosition(0, 7)], 1, away) == (
        "1 request, attempt 2 of 3 (partition 0, offset 7)",
        "not counted: Unavailable: PostgreSQL is away",
    )


def test_a_task_for_whatever_is_due_is_described_in_words(app: Any) -> None:
    """Each says what it processes, and whether the sweep or another run of the same task sent it."""
    messages.send_outbox_tasks(app, None, [OutboxKind.NOTIFY, OutboxKind.GATE], dead=True)
    messages.send_sync_changes(app, source=MessageSource.SWEEP)
    messages.send_continuation(app, Task.NOTIFY)

    lost = "overdue, sent again by the sweep"
    assert app.described == [
        ("notify.deliver", "notices that are due", "after a commit"),
        ("maintenance.sync_gate", "released seats and sold-out coupons, for the gate", "after a commit"),
        ("dead_letter.forward", "dead letters not on their topic yet", "after a commit"),
        ("maintenance.sync_changes", "coupon changes, for the gate", lost),
        ("notify.deliver", "notices that are due", "the previous run reached its limit of 3 s"),
    ]


def test_without_redis_a_task_is_sent_although_it_may_be_queued(app: Any) -> None:
    """One message too many does no harm; one too few would leave the rows to the sweep."""
    for _ in range(2):
        messages.send_outbox_tasks(app, GateAdmin(build_client(_NO_REDIS)), [OutboxKind.NOTIFY], dead=False)

    assert [name for name, *_ in app.described] == ["notify.deliver"] * 2


def test_another_delivery_of_notices_is_described_with_its_attempt_and_reason() -> None:
    """A receiver that fails is named with what it answered."""
    described = descriptions.describe_due_work_retry(Task.NOTIFY, 2, 4, RuntimeError("it answered 500"))

    assert described == ("notices that are due, attempt 2 of 4", "after it answered 500")


def test_what_an_attempt_left_to_do_is_described_too(app: Any) -> None:
    """Requests that failed again name their reason; standby requests name their coupon."""
    at = LogPosition(2, 9)
    done = FollowUp(retries={(5, 2): [at]}, held_failures={at: HeldFailure(8, DIVISION)}, coupons_with_standby=[4])
    messages.send_follow_up(app, GateAdmin(build_client(_NO_REDIS)), done)

    after = "after DivisionByZero: division by zero"
    assert app.described == [
        ("retry.issue", "1 request of coupon 8, attempt 3 of 3 (partition 2, offset 9)", after),
        ("retry.decide_standby", "standby requests of coupon 4", "after a commit"),
    ]


def test_merged_batches_keep_their_reasons() -> None:
    """The thread after the commit sends one message for several batches."""
    first, second = LogPosition(0, 1), LogPosition(0, 2)
    merged = IssueResult(held=[first], held_failures={first: HeldFailure(1, DIVISION)})

    merged.merge(IssueResult(held=[second], held_failures={second: HeldFailure(2, DIVISION)}))

    assert merged.held == [first, second]
    assert {at: held.coupon_id for at, held in merged.held_failures.items()} == {first: 1, second: 2}
