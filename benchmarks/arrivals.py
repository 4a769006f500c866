"""When requests are due in an open model: at a constant rate, whatever became of those before them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arrivals:
    """So many requests at a constant rate per second, the first one at once.

    A wait is counted from the moment when its request was due. Were it counted from the moment when the request could
    be sent, one that had to queue behind a slow answer would look fast (coordinated omission).
    """

    rate: float
    count: int

    def due_at(self, number: int) -> float:
        """Seconds from the beginning until the request of this number, counted from 0, is due."""
        return number / self.rate

    def due_by(self, seconds: float) -> int:
        """How many requests are due so many seconds after the beginning."""
        if seconds < 0:
            return 0
        return min(self.count, int(seconds * self.rate) + 1)
