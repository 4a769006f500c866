"""The rate at which the backlog of a partition is decided, from checkpoints that were read at different times."""

from collections import deque
from typing import NamedTuple

#: moves of the checkpoint are measured over at least this time, because a batch decides thousands of records at once
_MIN_MOVE_SECONDS = 1.0
#: the rates over these last seconds are the ends of the range
_WINDOWS_SECONDS = (5.0, 20.0)


class RateRange(NamedTuple):
    """Records per second, the lowest and the highest mean of the last seconds."""

    min: float
    max: float


class _Move(NamedTuple):
    """By how much the checkpoint moved within some time."""

    ended_at: float
    seconds: float
    records: int


class DrainRate:
    """Measures one partition. Times are seconds of a monotonic clock.

    Only moves of a partition with a backlog count: without one the checkpoint follows the arrivals, which says nothing
    about how long a backlog would take. A backlog is known from the offsets of requests that were seen waiting.
    """

    def __init__(self) -> None:
        self._moves: deque[_Move] = deque()
        #: the largest offset of a request that was seen waiting
        self._last_waiting = -1
        #: when the present move began, at which next offset, and the largest offset that waited then
        self._begin: tuple[float, int, int] | None = None

    def note_waiting(self, offset: int) -> None:
        """Note the offset of a request that is not decided."""
        self._last_waiting = max(self._last_waiting, offset)

    def observe(self, next_offset: int, at: float) -> None:
        """Note the checkpoint, read at this time."""
        if self._begin is not None:
            began_at, began_with, waited_for = self._begin
            if at - began_at < _MIN_MOVE_SECONDS:
                return
            if waited_for >= next_offset:  # a record has waited all the time
                self._moves.append(_Move(at, at - began_at, next_offset - began_with))
        self._begin = at, next_offset, self._last_waiting

    def range_at(self, now: float) -> RateRange | None:
        """Return the range, or None if it is not known or the checkpoint does not move."""
        while self._moves and self._moves[0].ended_at <= now - max(_WINDOWS_SECONDS):
            self._moves.popleft()
        rates = []
        for window in _WINDOWS_SECONDS:
            recent = [move for move in self._moves if move.ended_at > now - window]
            if recent:
                rates.append(sum(move.records for move in recent) / sum(move.seconds for move in recent))
        return RateRange(min(rates), max(rates)) if rates and min(rates) > 0 else None
