"""Judges afterwards whether a coupon's requests were decided in order, from its rows and its recorded changes; pure."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from service.domain.coupon import Override
from service.domain.request import Code, State

#: a moment in the order of records: the log and the offset in the coupon's one partition of it
Moment = tuple[int, int]
_BEGINNING: Moment = (-1, -1)


class Version(NamedTuple):
    """A coupon's values and the first record that was decided by them; None: the first of all."""

    since: Moment | None
    quantity: int
    override: Override


class Line(NamedTuple):
    """What became of one request."""

    at: Moment
    state: State
    code: Code | None
    sequence: int | None
    attempts: int
    #: an operator brought it back from the dead
    replayed: bool
    #: it came through the API, so its window was judged there
    accepted: bool


class Judge:
    """Reads a coupon's requests in order, one at a time, and counts what contradicts P3 and P5."""

    def __init__(self, versions: Sequence[Version]) -> None:
        self._versions = versions
        self._starts = [version.since or _BEGINNING for version in versions]
        self._issued = 0
        #: the largest quantity at which someone has heard "sold out"
        self._sold_out_at = 0
        self._out_of_order = 0
        #: a request of this coupon was tried again, replayed or had to wait: sequence and offset may differ
        self.disturbed = False
        self.found: Counter[str] = Counter()

    def read(self, lines: Iterable[Line]) -> "Judge":
        """Reads all lines, in order."""
        for line in lines:
            self._read(line)
        return self

    @property
    def out_of_order(self) -> int:
        """Sequences that differ from the offset order though nothing had to be retried."""
        return 0 if self.disturbed else self._out_of_order

    def _read(self, line: Line) -> None:
        number = bisect_right(self._starts, line.at) - 1
        self.disturbed = (
            self.disturbed or line.attempts > 1 or line.state in (State.RETRYING, State.STANDBY, State.DEAD)
        )
        if number >= 0:
            self._check_close(line, self._versions[number])
            self._check_seat(line, number)
        if line.accepted and line.code in (Code.NOT_OPEN, Code.PAUSED, Code.UNKNOWN_COUPON):
            self.found["judged_twice"] += 1

    def _check_close(self, line: Line, version: Version) -> None:
        """A close refuses what lies behind it, and nothing before it; a replay is decided by the values of its day."""
        if not line.accepted or line.replayed:
            return
        closed = version.override is Override.CLOSED
        if closed and line.state is not State.REFUSED:
            self.found["decided_though_closed"] += 1
        if not closed and line.code is Code.CLOSED:
            self.found["closed_too_early"] += 1

    def _check_seat(self, line: Line, number: int) -> None:
        if line.state is State.ISSUED:
            self._issued += 1
            self._out_of_order += line.sequence != self._issued
        if line.replayed:
            return
        quantity = self._versions[number].quantity
        if line.state is State.ISSUED and quantity <= self._sold_out_at:
            self.found["served_after_sold_out"] += 1
        if line.code is Code.SOLD_OUT:
            self._sold_out_at = max(self._sold_out_at, quantity)
            # one that waited may have been refused under a later, smaller quantity
            if self._issued < min(version.quantity for version in self._versions[number:]):
                self.found["sold_out_too_early"] += 1
