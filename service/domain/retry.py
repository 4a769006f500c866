"""How often a failed request is retried, and after which delays."""

from typing import NamedTuple


class RetryPolicy(NamedTuple):
    """A number of attempts, the first one included, with a delay that grows by a factor."""

    attempts: int = 3
    delay_seconds: float = 1.0
    multiplier: float = 2.0

    def delay_after(self, attempts_made: int) -> float | None:
        """Return the seconds until the next attempt, or None when attempts_made was the last."""
        if attempts_made >= self.attempts:
            return None
        return self.delay_seconds * self.multiplier ** (attempts_made - 1)


#: the policy of the report's consumer: three attempts, after 1 s and after 2 s
ISSUE_RETRY_POLICY = RetryPolicy()


def backoff_seconds(
    attempts_made: int, *, initial_seconds: float = 1.0, max_seconds: float = 300.0, jitter: float = 0.0
) -> float:
    """Return the seconds before the next attempt of work that is retried without a limit: doubling up to max_seconds.

    `jitter`, a random number from 0 to 1, removes up to half of it, so that many callers do not retry at once.
    """
    return float(min(initial_seconds * 2 ** min(attempts_made - 1, 30), max_seconds)) * (1 - jitter / 2)
