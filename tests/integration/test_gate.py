"""The gate's verdicts: admitted or a reason, in one round trip."""

import pytest
from redis import Redis

from service.domain.coupon import Coupon, Override
from service.gate.async_gate import Admission
from service.gate.gate_admin import GateAdmin
from service.gate.keys import Verdict
from tests.builders import AT_MS, coupon
from tests.gate_client import GateClient, seat


def _verdicts(admissions: list[Admission]) -> list[Verdict]:
    return [admission.verdict for admission in admissions]


def test_quantity_plus_waitlist_users_are_admitted(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """P5: quantity + waitlist users are admitted in order of arrival; the next one is refused as sold_out."""
    gate_admin.fill(coupon(quantity=2, waitlist=1), [])

    admissions = gate_client.admit(*(seat(user) for user in range(1, 5)))

    assert _verdicts(admissions) == [*[Verdict.ADMITTED] * 3, Verdict.SOLD_OUT]
    assert [admission.detail for admission in admissions[:3]] == ["request-of-1", "request-of-2", "request-of-3"]


def test_a_repeat_gets_the_request_id_of_the_first(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """P2: before the first is acknowledged the repeat is unacknowledged, afterwards it is a duplicate."""
    gate_admin.fill(coupon(), [])
    gate_client.admit(seat(7, "first"))

    (before,) = gate_client.admit(seat(7, "second"))
    gate_client.record_offset(seat(7, "first"), 3)
    (after,) = gate_client.admit(seat(7, "third"))

    assert (before.verdict, before.detail) == (Verdict.UNACKNOWLEDGED, "first")
    assert (after.verdict, after.detail) == (Verdict.DUPLICATE, "first")


def test_a_user_with_a_seat_is_a_duplicate_also_when_sold_out(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """P5: sold_out is for users without a request; the others get the id of theirs."""
    gate_admin.fill(coupon(quantity=1, issued=1), [(7, "first")])

    assert _verdicts(gate_client.admit(seat(7), seat(8))) == [Verdict.DUPLICATE, Verdict.SOLD_OUT]


@pytest.mark.parametrize(
    ("filled", "verdict", "detail"),
    [
        (coupon(opens_at_ms=AT_MS + 1), Verdict.NOT_OPEN, str(AT_MS + 1)),
        (coupon(opens_at_ms=AT_MS), Verdict.ADMITTED, "request-of-1"),
        (coupon(closes_at_ms=AT_MS), Verdict.CLOSED, ""),
        (coupon(closes_at_ms=AT_MS + 1), Verdict.ADMITTED, "request-of-1"),
        (coupon(override=Override.PAUSED), Verdict.PAUSED, ""),
        (coupon(override=Override.CLOSED, opens_at_ms=AT_MS + 1), Verdict.CLOSED, ""),
        (coupon(quantity=5, issued=5), Verdict.SOLD_OUT, ""),
        (coupon(coupon_id=2), Verdict.COLD, ""),
    ],
)
def test_each_reason_has_its_verdict(
    filled: Coupon, verdict: Verdict, detail: str, gate_client: GateClient, gate_admin: GateAdmin
) -> None:
    """Window, pause, close and stock are checked at the gate, by its clock; a cold gate has its own verdict."""
    gate_admin.fill(filled, [])

    (admission,) = gate_client.admit(seat(1))

    assert (admission.verdict, admission.detail) == (verdict, detail)


def test_a_coupon_that_does_not_exist_is_refused_for_a_few_seconds(
    gate_client: GateClient, gate_admin: GateAdmin, redis: Redis
) -> None:
    """An id that does not exist costs the database one query; the mark for it expires."""
    gate_admin.mark_unknown(1)

    assert _verdicts(gate_client.admit(seat(1))) == [Verdict.UNKNOWN_COUPON]
    assert 0 < int(redis.ttl("gate:1")) <= 5


def test_one_call_judges_each_coupon_and_each_repeat_separately(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """Requests of one batch are checked as if they had come one after another, whatever coupons they mix."""
    gate_admin.fill(coupon(quantity=2), [])
    gate_admin.fill(coupon(coupon_id=2, quantity=1), [(9, "long ago")])

    admissions = gate_client.admit(
        seat(1, "a"), seat(9, "b", coupon_id=2), seat(1, "c"), seat(2, "d"), seat(8, coupon_id=2), seat(3), seat(1, "e")
    )

    assert [(admission.verdict, admission.detail) for admission in admissions] == [
        (Verdict.ADMITTED, "a"),
        (Verdict.DUPLICATE, "long ago"),
        (Verdict.UNACKNOWLEDGED, "a"),
        (Verdict.ADMITTED, "d"),
        (Verdict.SOLD_OUT, ""),
        (Verdict.SOLD_OUT, ""),
        (Verdict.UNACKNOWLEDGED, "a"),
    ]


def test_the_largest_ids_and_offsets_keep_every_digit(
    gate_client: GateClient, gate_admin: GateAdmin, redis: Redis
) -> None:
    """An id beyond what a Lua number can hold is kept to its last digit, and so is an offset."""
    largest = 2**63 - 1
    gate_admin.fill(coupon(coupon_id=largest), [])

    admissions = gate_client.admit(seat(largest, "a", largest), seat(largest - 1, "b", largest))
    gate_client.record_offset(seat(largest, "a", largest), largest)

    assert _verdicts(admissions) == [Verdict.ADMITTED] * 2
    assert redis.hgetall(f"gate:{largest}:offsets") == {b"%d" % largest: b"%d" % largest}


def test_scripts_are_loaded_again_after_they_were_flushed(
    gate_client: GateClient, gate_admin: GateAdmin, redis: Redis
) -> None:
    """P6: Redis without its scripts costs one more round trip and nothing else."""
    gate_admin.fill(coupon(quantity=2), [])
    gate_client.admit(seat(1))
    redis.script_flush()

    assert _verdicts(gate_client.admit(seat(2))) == [Verdict.ADMITTED]


def test_the_verdict_carries_the_issuers_progress(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """The position in the 202 costs no second round trip."""
    gate_admin.fill(coupon(), [])
    gate_admin.publish_progress({0: 12, 5: 7})

    assert gate_client.progress() == {0: 12, 5: 7}
