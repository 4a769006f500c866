"""The report's retry policy: three attempts, 1000 ms, multiplier 2.0."""

import pytest

from service.domain.retry import ISSUE_RETRY_POLICY, backoff_seconds


@pytest.mark.parametrize(("attempts_made", "delay"), [(1, 1.0), (2, 2.0), (3, None), (4, None)])
def test_a_failed_request_is_retried_after_one_and_two_seconds_then_dead(
    attempts_made: int, delay: float | None
) -> None:
    """The same policy as the report's retry topics."""
    assert ISSUE_RETRY_POLICY.delay_after(attempts_made) == delay


@pytest.mark.parametrize(("attempts_made", "seconds"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 5.0), (9**9, 5.0)])
def test_backoff_doubles_up_to_its_maximum(attempts_made: int, seconds: float) -> None:
    """P7: unlimited retries become rarer up to a maximum, and a long outage does not overflow the computation."""
    assert backoff_seconds(attempts_made, initial_seconds=0.5, max_seconds=5) == seconds
