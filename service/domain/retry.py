"""How often a failed request is tried again, and when it is given up."""

from typing import NamedTuple


class RetryPolicy(NamedTuple):
    """Attempts counting the first, with a delay that grows by a factor: 1 s, 2 s, given up."""

    attempts: int = 3
    delay_seconds: float = 1.0
    multiplier: float = 2.0

    def delay_after(self, attempts_made: int) -> float | None:
        """Seconds until the next attempt, or None when attempts_made was the last."""
        if attempts_made >= self.attempts:
            return None
        return self.delay_seconds * self.multiplier ** (attempts_made - 1)


ISSUE_RETRY_POLICY = RetryPolicy()


def backoff_seconds(
    attempts_made: int, *, initial_seconds: float = 1.0, max_seconds: float = 300.0, jitter: float = 0.0
) -> float:
    """Seconds between attempts that are never given up: doubling from `first` up to `ceiling`.

    `jitter`, a random number from 0 to 1, takes up to half of it away, so that many do not come back at once.
    """
    return float(min(initial_seconds * 2 ** min(attempts_made - 1, 30), max_seconds)) * (1 - jitter / 2)
