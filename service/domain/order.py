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
    """A coupon's values and the first record that was decided by them; None: the first of all.

    Times are milliseconds since 1970 UTC.
    """

    since: Moment | None
    quantity: int
    override: Override
    opens_at_ms: int | None
    closes_at_ms: int | None
    changed_at_ms: int

    def window(self, at_ms: int) -> Code | None:
        """What is heard by who comes at that moment and was not judged at the gate; None: he is in time."""
        if self.override is Override.CLOSED or (self.closes_at_ms is not None and at_ms >= self.closes_at_ms):
            return Code.CLOSED
        if self.override is Override.PAUSED:
            return Code.PAUSED
        return Code.NOT_OPEN if self.opens_at_ms is not None and at_ms < self.opens_at_ms else None


def version_at(versions: Sequence[Version], at: Moment) -> int:
    """The number of the values by which a record was decided; -1: there were none."""
    return bisect_right(versions, at, key=lambda version: version.since or _BEGINNING) - 1


class Line(NamedTuple):
    """What became of one request."""

    at: Moment
    state: State
    code: Code | None
    sequence: int | None
    attempts: int
    #: when it ended; None while it has not
    decided_at_ms: int | None
    #: an operator brought it back from the dead
    replayed: bool
    #: it came through the API, so its window was judged there
    accepted: bool


class Judge:
    """Reads a coupon's requests in order, one at a time, and counts what contradicts P3 and P5."""

    def __init__(self, versions: Sequence[Version]) -> None:
        self._versions = versions
        self._issued = 0
        #: as many at least were issued when someone who has been read heard "sold out"
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
        number = version_at(self._versions, line.at)
        waited = line.state in (State.RETRYING, State.STANDBY, State.DEAD)
        self.disturbed = self.disturbed or line.attempts > 1 or line.replayed or waited
        if number >= 0:
            self._check_close(line, self._versions[number])
            self._check_seat(line, number)
        if line.accepted and line.code in (Code.NOT_OPEN, Code.PAUSED, Code.UNKNOWN_COUPON):
            self.found["judged_twice"] += 1

    def _check_close(self, line: Line, version: Version) -> None:
        """A close refuses what lies behind it, and nothing before it; a replay is decided by the values of its day.

        One whose row could not be written is dead at once, wherever it lies.
        """
        if not line.accepted or line.replayed:
            return
        closed = version.override is Override.CLOSED
        if closed and line.state is not State.REFUSED and line.code is not Code.POISON:
            self.found["decided_though_closed"] += 1
        if not closed and line.code is Code.CLOSED:
            self.found["closed_too_early"] += 1

    def _check_seat(self, line: Line, number: int) -> None:
        quantities = self._quantities(number, line)
        if line.state is State.ISSUED:
            self._issued += 1
            self._out_of_order += line.sequence != self._issued
            self._check_served(line.sequence or 0, max(quantities))
        elif line.code is Code.SOLD_OUT and not line.replayed:
            self._sold_out_at = max(self._sold_out_at, min(quantities))
            if self._issued < min(quantities):
                self.found["sold_out_too_early"] += 1

    def _check_served(self, sequence: int, most: int) -> None:
        """A sequence tells how many had been issued: nobody behind one who heard "sold out" was among those."""
        if sequence <= self._sold_out_at or sequence > most:
            self.found["served_after_sold_out"] += 1

    def _quantities(self, number: int, line: Line) -> list[int]:
        """Those by which it may have been decided: its record's, and, had it to wait, each one until it ended."""
        until = line.decided_at_ms
        later = self._versions[number + 1 :]
        return [self._versions[number].quantity] + [
            version.quantity for version in later if until is None or version.changed_at_ms <= until
        ]
