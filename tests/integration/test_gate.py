"""The gate: one round trip says admitted, or why not."""

import pytest
from redis import Redis

from service.domain.coupon import Coupon, Override
from service.gate.async_gate import Admission
from service.gate.gate_admin import GateAdmin
from service.gate.keys import Verdict
from tests.builders import AT_MS, coupon
from tests.gate_client import GateClient, seat


def _verdicts(judged: list[Admission]) -> list[Verdict]:
    return [one.verdict for one in judged]


def test_as_many_as_there_are_seats_get_in(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """Step 2: quantity + waitlist users are admitted in the order they came, the next hears sold_out."""
    gate_admin.fill(coupon(quantity=2, waitlist=1), [])

    judged = gate_client.admit(*(seat(user) for user in range(1, 5)))

    assert _verdicts(judged) == [*[Verdict.ADMITTED] * 3, Verdict.SOLD_OUT]
    assert [one.detail for one in judged[:3]] == ["request-of-1", "request-of-2", "request-of-3"]


def test_a_repeat_gets_the_first_ones_id(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """Step 2: while the first is unheard of the repeat is unsettled, after the broker's ack it is a duplicate."""
    gate_admin.fill(coupon(), [])
    gate_client.admit(seat(7, "first"))

    (before,) = gate_client.admit(seat(7, "second"))
    gate_client.note(seat(7, "first"), 3)
    (after,) = gate_client.admit(seat(7, "third"))

    assert (before.verdict, before.detail) == (Verdict.UNACKNOWLEDGED, "first")
    assert (after.verdict, after.detail) == (Verdict.DUPLICATE, "first")


def test_who_has_a_seat_hears_duplicate_even_when_all_are_gone(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """Step 2: sold_out is for those who have nothing; the others are led to what they have."""
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
def test_each_refusal_has_its_word(
    filled: Coupon, verdict: Verdict, detail: str, gate_client: GateClient, gate_admin: GateAdmin
) -> None:
    """Step 2: window, pause, close and stock are judged at the gate, by the API's clock; a cold gate says so."""
    gate_admin.fill(filled, [])

    (judged,) = gate_client.admit(seat(1))

    assert (judged.verdict, judged.detail) == (verdict, detail)


def test_a_coupon_that_does_not_exist_is_refused_for_a_few_seconds(
    gate_client: GateClient, gate_admin: GateAdmin, redis: Redis
) -> None:
    """Step 2: nonsense costs the database one look, and the note of it ends by itself."""
    gate_admin.mark_unknown(1)

    assert _verdicts(gate_client.admit(seat(1))) == [Verdict.UNKNOWN_COUPON]
    assert 0 < int(redis.ttl("gate:1")) <= 5


def test_many_at_once_are_one_call(gate_client: GateClient, gate_admin: GateAdmin, redis: Redis) -> None:
    """Step 2: concurrent requests are gathered, 500 to a round trip, and each gets its own answer."""
    gate_admin.fill(coupon(quantity=900), [])
    redis.config_resetstat()

    judged = gate_client.admit(*(seat(user) for user in range(1, 1001)))

    calls: dict[str, dict[str, int]] = redis.info("commandstats")
    assert _verdicts(judged) == [Verdict.ADMITTED] * 900 + [Verdict.SOLD_OUT] * 100
    assert calls["cmdstat_evalsha"]["calls"] - calls["cmdstat_evalsha"]["failed_calls"] == 2


def test_one_call_judges_each_coupon_and_each_repeat_by_itself(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """Step 2: requests that travel together are judged as if they had come one after another, whatever they mix."""
    gate_admin.fill(coupon(quantity=2), [])
    gate_admin.fill(coupon(coupon_id=2, quantity=1), [(9, "long ago")])

    judged = gate_client.admit(
        seat(1, "a"), seat(9, "b", coupon_id=2), seat(1, "c"), seat(2, "d"), seat(8, coupon_id=2), seat(3), seat(1, "e")
    )

    assert [(one.verdict, one.detail) for one in judged] == [
        (Verdict.ADMITTED, "a"),
        (Verdict.DUPLICATE, "long ago"),
        (Verdict.UNACKNOWLEDGED, "a"),
        (Verdict.ADMITTED, "d"),
        (Verdict.SOLD_OUT, ""),
        (Verdict.SOLD_OUT, ""),
        (Verdict.UNACKNOWLEDGED, "a"),
    ]


def test_ids_of_any_length_are_told_apart(gate_client: GateClient, gate_admin: GateAdmin, redis: Redis) -> None:
    """Step 2: an id beyond what a script's numbers can hold is kept to its last digit, and so is an offset."""
    largest = 2**63 - 1
    gate_admin.fill(coupon(coupon_id=largest), [])

    judged = gate_client.admit(seat(largest, "a", largest), seat(largest - 1, "b", largest))
    gate_client.note(seat(largest, "a", largest), largest)

    assert _verdicts(judged) == [Verdict.ADMITTED] * 2
    assert redis.hgetall(f"gate:{largest}:offsets") == {b"%d" % largest: b"%d" % largest}


def test_a_gate_that_forgot_its_scripts_is_told_them_again(
    gate_client: GateClient, gate_admin: GateAdmin, redis: Redis
) -> None:
    """P6: Redis restarted or emptied of scripts costs a round trip and nothing else."""
    gate_admin.fill(coupon(quantity=2), [])
    gate_client.admit(seat(1))
    redis.script_flush()

    assert _verdicts(gate_client.admit(seat(2))) == [Verdict.ADMITTED]


def test_the_answer_tells_how_far_the_issuer_is(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """Section 4: the position in the 202 costs no second round trip."""
    gate_admin.fill(coupon(), [])
    gate_admin.publish_progress({0: 12, 5: 7})

    (judged,) = gate_client.admit(seat(1))

    assert judged.progress == {0: 12, 5: 7}
