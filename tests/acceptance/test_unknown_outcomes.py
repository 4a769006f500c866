"""A produce with an unknown outcome: 503, the user keeps the seat, and the repeat is the same request."""

import os
import signal

from tests.system import System


def test_a_repeat_after_an_unknown_outcome_is_the_same_request(system: System) -> None:
    """Kafka frozen beyond the produce timeout: 503; after the thaw the repeat names one request, issued once."""
    coupon = system.make_coupon(quantity=1)
    kafka = system.stack.pid("kafka")
    os.killpg(kafka, signal.SIGSTOP)
    try:
        unanswered = system.request_issuance(coupon, 1)
        seat = system.redis.hget(f"gate:{coupon}:seats", "1")
    finally:
        os.killpg(kafka, signal.SIGCONT)
    assert unanswered is not None
    assert unanswered.status_code == 503
    assert seat, "the seat must be kept"

    answer = system.request_until_answered(coupon, 1)

    assert answer.headers["location"] == f"/issuances/{seat.decode()}"  # type: ignore[union-attr]
    assert system.wait_until_final(seat.decode())["state"] == "issued"  # type: ignore[union-attr]
    assert system.count("SELECT count(*) FROM requests WHERE coupon_id = :id", id=coupon) == 1


def test_simultaneous_requests_of_a_user_are_one_request(system: System) -> None:
    """While the first is being produced, the others wait for its outcome and are answered as its duplicates."""
    coupon = system.make_coupon(quantity=3)

    answers = [answer for answer in system.request_many(coupon, [1] * 8, at_once=8) if answer is not None]

    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7
    assert len({answer.headers["location"] for answer in answers}) == 1
