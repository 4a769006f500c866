"""Checks afterwards that the requests of a coupon were decided in order, from its rows and recorded changes; pure."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from service.domain.coupon import Override
from service.domain.request import ReasonCode, RequestState

#: the order of records of one coupon: log id, and offset in the coupon's partition of that log
OffsetInLog = tuple[int, int]
_BEGINNING: OffsetInLog = (-1, -1)
#: a close refuses neither a record whose row could not be written nor one that was lost
_NOT_DECIDED = (ReasonCode.POISON, ReasonCode.LOST)


class CouponVersion(NamedTuple):
    """The values of a coupon and the first record decided by them; times are milliseconds since 1970 UTC."""

    #: None: they apply from the first record
    effective_from: OffsetInLog | None
    quantity: int
    override: Override
    opens_at_ms: int | None
    closes_at_ms: int | None
    changed_at_ms: int

    def window_refusal(self, at_ms: int) -> ReasonCode | None:
        """Return the refusal code for a foreign record appended at at_ms, or None if the coupon is open then."""
        if self.override is Override.CLOSED or (self.closes_at_ms is not None and at_ms >= self.closes_at_ms):
            return ReasonCode.CLOSED
        if self.override is Override.PAUSED:
            return ReasonCode.PAUSED
        return ReasonCode.NOT_OPEN if self.opens_at_ms is not None and at_ms < self.opens_at_ms else None


def version_index_at(versions: Sequence[CouponVersion], at: OffsetInLog) -> int:
    """Return the index of the version by which a record was decided, or -1 if there was none."""
    return bisect_right(versions, at, key=lambda version: version.effective_from or _BEGINNING) - 1


class DecidedRequest(NamedTuple):
    """A row of requests as the order check needs it."""

    at: OffsetInLog
    state: RequestState
    code: ReasonCode | None
    sequence: int | None
    attempts: int
    #: None while the request is not final
    decided_at_ms: int | None
    #: an operator replayed its dead letter
    replayed: bool
    #: it came through the API, so the gate checked its window
    accepted: bool


class OrderChecker:
    """Reads the requests of a coupon in order, one at a time, and counts contradictions of P3 and P5."""

    def __init__(self, versions: Sequence[CouponVersion]) -> None:
        """`versions` are the recorded values of the coupon, oldest first."""
        self._versions = versions
        self._issued = 0
        #: lower bound of the coupons issued at the latest sold-out refusal so far
        self._sold_out_at = 0
        self._out_of_order = 0
        #: a request was retried, replayed or on standby: sequence and offset order can differ
        self.had_retries = False
        self.violations: Counter[str] = Counter()

    def check(self, requests: Iterable[DecidedRequest]) -> "OrderChecker":
        """Read all requests, in order."""
        for request in requests:
            waited = request.state in (RequestState.RETRYING, RequestState.STANDBY, RequestState.DEAD)
            self.had_retries = self.had_retries or request.attempts > 1 or request.replayed or waited
            index = version_index_at(self._versions, request.at)
            if index >= 0:
                self._check_close(request, self._versions[index])
                self._check_seat(request, index)
            if request.accepted and request.code in (
                ReasonCode.NOT_OPEN,
                ReasonCode.PAUSED,
                ReasonCode.UNKNOWN_COUPON,
                ReasonCode.FOREIGN,
            ):
                self.violations["window_checked_twice"] += 1
        return self

    @property
    def out_of_order(self) -> int:
        """Number of sequences that differ from the offset order although nothing was retried."""
        return 0 if self.had_retries else self._out_of_order

    def _check_close(self, request: DecidedRequest, version: CouponVersion) -> None:
        """A close refuses every later record and no earlier one.

        A replay uses the coupon's values at replay time; a record that was lost, or whose row could not be written, is
        dead in any case.
        """
        if not request.accepted or request.replayed:
            return
        closed = version.override is Override.CLOSED
        if closed and request.state is not RequestState.REFUSED and request.code not in _NOT_DECIDED:
            self.violations["not_refused_after_close"] += 1
        if not closed and request.code is ReasonCode.CLOSED:
            self.violations["closed_too_early"] += 1

    def _check_seat(self, request: DecidedRequest, index: int) -> None:
        """Check an issued request against the quantity, and a refusal as sold out against the number issued.

        A request that waited may have been decided by any quantity that applied before it became final. Its sequence
        must be above the number issued at an earlier sold-out refusal.
        """
        later = self._versions[index + 1 :]
        until_ms = request.decided_at_ms
        quantities = [self._versions[index].quantity] + [
            version.quantity for version in later if until_ms is None or version.changed_at_ms <= until_ms
        ]
        if request.state is RequestState.ISSUED:
            self._issued += 1
            self._out_of_order += request.sequence != self._issued
            sequence = request.sequence or 0
            if sequence <= self._sold_out_at or sequence > max(quantities):
                self.violations["issued_after_sold_out"] += 1
        elif request.code is ReasonCode.SOLD_OUT and not request.replayed:
            self._sold_out_at = max(self._sold_out_at, min(quantities))
            if self._issued < min(quantities):
                self.violations["sold_out_too_early"] += 1
