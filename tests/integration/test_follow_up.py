"""What follows from a commit of the API or a command reaches an issuer, which sends the Celery tasks."""

from collections.abc import Callable

import pytest

from service.domain.dead_letter import DeadLetterFilter
from service.domain.failures import FailureClass, describe
from service.domain.request import LogPosition
from service.gate.client import build_client
from service.gate.gate_admin import GateAdmin
from service.gate.keys import MAX_FOLLOW_UPS
from service.store.outbox import OutboxKind
from service.usecases import follow_up
from service.usecases.coupons import CouponService
from service.usecases.follow_up import FollowUp
from service.usecases.replay import DeadLetterService
from service.usecases.write_plan import HeldFailure
from tests.integration.conftest import StartSale

_WAIT_SECONDS = 0.2


@pytest.fixture
def full() -> FollowUp:
    """A follow-up with a value in every field."""
    position = LogPosition(3, 17)
    failure = HeldFailure(42, describe(FailureClass.RECORD, ValueError("the row is invalid")))
    return FollowUp(
        retries={(1, 2): [position]},
        held_failures={position: failure},
        outbox_kinds={OutboxKind.NOTIFY, OutboxKind.GATE},
        has_dead_letters=True,
        coupons_with_standby=[42, 43],
    )


def test_a_follow_up_arrives_unchanged_and_once(full: FollowUp, gate_admin: GateAdmin) -> None:
    """One of several issuers takes it; the others find nothing."""
    follow_up.publish(gate_admin, full)

    assert follow_up.receive(gate_admin, _WAIT_SECONDS) == full
    assert follow_up.receive(gate_admin, _WAIT_SECONDS) is None


def test_nothing_is_published_when_nothing_follows(gate_admin: GateAdmin) -> None:
    """A change without standby requests wakes no issuer."""
    follow_up.publish(gate_admin, FollowUp())

    assert follow_up.receive(gate_admin, _WAIT_SECONDS) is None


def test_without_an_issuer_the_list_stays_bounded(gate_admin: GateAdmin) -> None:
    """The oldest are dropped: the sweep finds their rows."""
    for number in range(MAX_FOLLOW_UPS + 5):
        follow_up.publish(gate_admin, FollowUp(coupons_with_standby=[number + 1]))

    first = follow_up.receive(gate_admin, _WAIT_SECONDS)

    assert first
    assert first.coupons_with_standby == [6]


def test_without_redis_the_caller_goes_on(full: FollowUp) -> None:
    """P6: the commit stands, and the sweep does the work."""
    follow_up.publish(GateAdmin(build_client("redis://127.0.0.1:9/0")), full)


def test_a_replay_publishes_its_notice(
    start_sale: StartSale,
    exhaust_retries: Callable[[], None],
    dead_letter_service: DeadLetterService,
    gate_admin: GateAdmin,
) -> None:
    """Users must not wait for the sweep; a dry run announces nothing."""
    start_sale(3, range(1, 3), {1: "22012 3"})
    exhaust_retries()
    dead_letter_service.replay_many(DeadLetterFilter(), 10, dry_run=True)
    assert follow_up.receive(gate_admin, _WAIT_SECONDS) is None

    dead_letter_service.replay(1)

    assert follow_up.receive(gate_admin, _WAIT_SECONDS) == FollowUp(outbox_kinds={OutboxKind.NOTIFY})


def test_a_replay_that_fails_publishes_its_retry(
    start_sale: StartSale,
    exhaust_retries: Callable[[], None],
    dead_letter_service: DeadLetterService,
    gate_admin: GateAdmin,
) -> None:
    """The retry policy begins again with one attempt made."""
    sale = start_sale(3, range(1, 3), {1: "22012 9"})
    exhaust_retries()

    dead_letter_service.replay(1)

    published = follow_up.receive(gate_admin, _WAIT_SECONDS)
    assert published
    ((log_id, attempts_made), (position,)) = next(iter(published.retries.items()))
    assert (log_id, attempts_made) == (1, 1)
    assert published.held_failures[position].coupon_id == sale.coupon.id
    assert "DivisionByZero" in str(published.held_failures[position].failure)


def test_a_raised_quantity_publishes_the_notices_of_standby(
    start_sale: StartSale, coupon_service: CouponService, gate_admin: GateAdmin
) -> None:
    """A standby request that is issued by the change is announced at once."""
    sale = start_sale(1, range(1, 3), {1: "22012 9"})

    coupon_service.change(sale.coupon.id, {"quantity": 2})

    published = follow_up.receive(gate_admin, _WAIT_SECONDS)
    assert published
    assert OutboxKind.NOTIFY in published.outbox_kinds
