"""A receiver that fails is left alone for longer and longer, within bounds."""

from service.webhooks.circuit_breaker import CircuitBreaker


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pauses_grow_up_to_a_ceiling_and_end_with_a_success() -> None:
    """Step 8: each failure in a row doubles the pause; at most half of it is taken away by chance."""
    rest = CircuitBreaker(_Clock())
    pauses = []
    for _ in range(6):
        rest.record_failure()
        pauses.append(rest.open_seconds)

    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, (1, 2, 4, 8, 10, 10), strict=True))
    rest.record_success()
    assert rest.open_seconds == 0
    rest.record_failure()
    assert rest.open_seconds <= 1


def test_a_pause_passes() -> None:
    """Step 8: then the receiver is tried again."""
    clock = _Clock()
    rest = CircuitBreaker(clock)
    rest.record_failure()

    clock.now = 1.0

    assert rest.open_seconds == 0


def test_what_the_receiver_asks_for_counts_within_reason() -> None:
    """Step 8: Retry-After is obeyed, for five minutes at most."""
    rest = CircuitBreaker(_Clock())
    rest.record_failure(asked_seconds=60)
    assert rest.open_seconds == 60
    rest.record_failure(asked_seconds=1e9)
    assert rest.open_seconds == 300
