"""Judges afterwards whether a coupon's requests were decided in order, from its rows and its recorded changes; pure."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from service.domain.coupon import Override
from service.domain.request import ReasonCode, RequestState

#: a moment in the order of records: the log and the offset in the coupon's one partition of it
OffsetInLog = tuple[int, int]
_BEGINNING: OffsetInLog = (-1, -1)


class CouponVersion(NamedTuple):
    """A coupon's values and the first record that was decided by them; None: the first of all.

    Times are milliseconds since 1970 UTC.
    """

    effective_from: OffsetInLog | None
    quantity: int
    override: Override
    opens_at_ms: int | None
    closes_at_ms: int | None
    changed_at_ms: int

    def window_refusal(self, at_ms: int) -> ReasonCode | None:
        """What is heard by who comes at that moment and was not judged at the gate; None: he is in time."""
        if self.override is Override.CLOSED or (self.closes_at_ms is not None and at_ms >= self.closes_at_ms):
            return ReasonCode.CLOSED
        if self.override is Override.PAUSED:
            return ReasonCode.PAUSED
        return ReasonCode.NOT_OPEN if self.opens_at_ms is not None and at_ms < self.opens_at_ms else None


def version_index_at(versions: Sequence[CouponVersion], at: OffsetInLog) -> int:
    """The number of the values by which a record was decided; -1: there were none."""
    return bisect_right(versions, at, key=lambda version: version.effective_from or _BEGINNING) - 1


class DecidedRequest(NamedTuple):
    """What became of one request."""

    at: OffsetInLog
    state: RequestState
    code: ReasonCode | None
    sequence: int | None
    attempts: int
    #: when it ended; None while it has not
    decided_at_ms: int | None
    #: an operator brought it back from the dead
    replayed: bool
    #: it came through the API, so its window was judged there
    accepted: bool


class OrderChecker:
    """Reads a coupon's requests in order, one at a time, and counts what contradicts P3 and P5."""

    def __init__(self, versions: Sequence[CouponVersion]) -> None:
        self._versions = versions
        self._issued = 0
        #: as many at least were issued when someone who has been read heard "sold out"
        self._sold_out_at = 0
        self._out_of_order = 0
        #: a request of this coupon was tried again, replayed or had to wait: sequence and offset may differ
        self.had_retries = False
        self.violations: Counter[str] = Counter()

    def check(self, lines: Iterable[DecidedRequest]) -> "OrderChecker":
        """Reads all lines, in order."""
        for line in lines:
            self._read(line)
        return self

    @property
    def out_of_order(self) -> int:
        """Sequences that differ from the offset order though nothing had to be retried."""
        return 0 if self.had_retries else self._out_of_order

    def _read(self, line: DecidedRequest) -> None:
        number = version_index_at(self._versions, line.at)
        waited = line.state in (RequestState.RETRYING, RequestState.STANDBY, RequestState.DEAD)
        self.had_retries = self.had_retries or line.attempts > 1 or line.replayed or waited
        if number >= 0:
            self._check_close(line, self._versions[number])
            self._check_seat(line, number)
        if line.accepted and line.code in (ReasonCode.NOT_OPEN, ReasonCode.PAUSED, ReasonCode.UNKNOWN_COUPON):
            self.violations["judged_twice"] += 1

    def _check_close(self, line: DecidedRequest, version: CouponVersion) -> None:
        """A close refuses what lies behind it, and nothing before it; a replay is decided by the values of its day.

        One whose row could not be written is dead at once, wherever it lies.
        """
        if not line.accepted or line.replayed:
            return
        closed = version.override is Override.CLOSED
        if closed and line.state is not RequestState.REFUSED and line.code is not ReasonCode.POISON:
            self.violations["decided_though_closed"] += 1
        if not closed and line.code is ReasonCode.CLOSED:
            self.violations["closed_too_early"] += 1

    def _check_seat(self, line: DecidedRequest, number: int) -> None:
        quantities = self._quantities(number, line)
        if line.state is RequestState.ISSUED:
            self._issued += 1
            self._out_of_order += line.sequence != self._issued
            self._check_served(line.sequence or 0, max(quantities))
        elif line.code is ReasonCode.SOLD_OUT and not line.replayed:
            self._sold_out_at = max(self._sold_out_at, min(quantities))
            if self._issued < min(quantities):
                self.violations["sold_out_too_early"] += 1

    def _check_served(self, sequence: int, most: int) -> None:
        """A sequence tells how many had been issued: nobody behind one who heard "sold out" was among those."""
        if sequence <= self._sold_out_at or sequence > most:
            self.violations["served_after_sold_out"] += 1

    def _quantities(self, number: int, line: DecidedRequest) -> list[int]:
        """Those by which it may have been decided: its record's, and, had it to wait, each one until it ended."""
        until = line.decided_at_ms
        later = self._versions[number + 1 :]
        return [self._versions[number].quantity] + [
            version.quantity for version in later if until is None or version.changed_at_ms <= until
        ]
