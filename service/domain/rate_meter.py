"""How fast a total grows: now, and in its fastest second."""

from collections import deque

#: the rate is that of the last seconds: of one alone it would jump with each batch
_NOW_SECONDS = 3.0
#: a total that was not observed for so long says nothing about a single second
_MAX_GAP_SECONDS = 3.0
_MIN_GAP_SECONDS = 0.5


class RateMeter:
    """Observes a total about once a second."""

    def __init__(self) -> None:
        self._observed: deque[tuple[float, int]] = deque()
        #: by which the total grew in its fastest second since the first observation
        self.peak_per_second = 0.0

    def observe(self, total: int, now_seconds: float) -> None:
        """Take the total at a time of a clock that is never set back.

        A total that has become smaller is another one, for example that of a new log.
        """
        if self._observed:
            at, before = self._observed[-1]
            gap = now_seconds - at
            if gap < _MIN_GAP_SECONDS:
                return
            if total < before or gap > _MAX_GAP_SECONDS:
                self._observed.clear()
            else:
                self.peak_per_second = max(self.peak_per_second, (total - before) / gap)
        self._observed.append((now_seconds, total))
        while now_seconds - self._observed[0][0] > _NOW_SECONDS + _MIN_GAP_SECONDS:
            self._observed.popleft()

    @property
    def per_second(self) -> float | None:
        """By which the total grew in each of the last seconds; None: not known yet."""
        (first_at, first), (last_at, last) = self._observed[0], self._observed[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else None
