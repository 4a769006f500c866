"""The circuit breaker: open for longer after each failure, within bounds."""

from service.webhooks.circuit_breaker import CircuitBreaker


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pauses_grow_up_to_a_ceiling_and_end_with_a_success() -> None:
    """Each failure in a row doubles the pause; jitter takes away at most half of it."""
    breaker = CircuitBreaker(_Clock())
    pauses = []
    for _ in range(6):
        breaker.record_failure()
        pauses.append(breaker.open_seconds)

    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, (1, 2, 4, 8, 10, 10), strict=True))
    breaker.record_success()
    assert breaker.open_seconds == 0
    breaker.record_failure()
    assert breaker.open_seconds <= 1


def test_a_pause_passes() -> None:
    """Then the receiver is tried again."""
    clock = _Clock()
    breaker = CircuitBreaker(clock)
    breaker.record_failure()

    clock.now = 1.0

    assert breaker.open_seconds == 0


def test_retry_after_is_obeyed_within_bounds() -> None:
    """Retry-After is obeyed, for five minutes at most."""
    breaker = CircuitBreaker(_Clock())
    breaker.record_failure(retry_after_seconds=60)
    assert breaker.open_seconds == 60
    breaker.record_failure(retry_after_seconds=1e9)
    assert breaker.open_seconds == 300
