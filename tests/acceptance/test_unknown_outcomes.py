"""A produce nobody heard of: 503, the seat is kept, and the user's repeat is the same request."""

import os
import signal

from tests.system import System


def test_a_repeat_after_an_unknown_outcome_is_the_same_request(system: System) -> None:
    """Kafka frozen beyond the produce timeout: 503; once it wakes, the repeat names one request, issued once."""
    coupon = system.make_coupon(quantity=1)
    kafka = system.stack.pid("kafka")
    os.killpg(kafka, signal.SIGSTOP)
    try:
        unheard = system.ask(coupon, 1)
        seat = system.redis.hget(f"gate:{coupon}:seats", "1")
    finally:
        os.killpg(kafka, signal.SIGCONT)
    assert unheard is not None
    assert unheard.status_code == 503
    assert seat, "the seat must be kept"

    answer = system.press(coupon, 1)

    assert answer.headers["location"] == f"/issuances/{seat.decode()}"  # type: ignore[union-attr]
    assert system.final(seat.decode())["state"] == "issued"  # type: ignore[union-attr]
    assert system.count("SELECT count(*) FROM requests WHERE coupon_id = :id", id=coupon) == 1


def test_two_presses_at_once_are_one_request(system: System) -> None:
    """While the first press is on its way to the log, the second waits for its word and is told of it."""
    coupon = system.make_coupon(quantity=3)

    answers = [answer for answer in system.ask_many(coupon, [1] * 8, at_once=8) if answer is not None]

    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7
    assert len({answer.headers["location"] for answer in answers}) == 1
