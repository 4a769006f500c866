"""Accepts a request for a coupon: takes a seat at the gate, appends the request to the log, returns its receipt."""

from collections.abc import Callable
from typing import NamedTuple

from service import crash_points
from service.crash_points import CrashPoint
from service.domain.errors import Refused, Unavailable
from service.domain.request import ReasonCode, records_ahead
from service.domain.request_id import RequestIds
from service.gate.async_gate import Admission, AsyncGate, SeatRequest
from service.gate.keys import Verdict
from service.log import bind_contextvars
from service.metrics import ISSUE_RESPONSES
from service.usecases.append_tracker import AppendTracker
from service.usecases.coupon_ids import CouponIds
from service.usecases.fill_pool import FillPool
from service.usecases.gate_fallback import DatabaseGate
from service.usecases.log_watch import LogWatch

_REFUSALS = {
    Verdict.DUPLICATE: ReasonCode.DUPLICATE,
    Verdict.SOLD_OUT: ReasonCode.SOLD_OUT,
    Verdict.NOT_OPEN: ReasonCode.NOT_OPEN,
    Verdict.CLOSED: ReasonCode.CLOSED,
    Verdict.PAUSED: ReasonCode.PAUSED,
    Verdict.UNKNOWN_COUPON: ReasonCode.UNKNOWN_COUPON,
}
_ACCEPTED, _UNAVAILABLE = ISSUE_RESPONSES.labels("accepted"), ISSUE_RESPONSES.labels("unavailable")
_REFUSED = {code: ISSUE_RESPONSES.labels(code) for code in _REFUSALS.values()}


class Receipt(NamedTuple):
    """The content of a 202, which is sent only when the log contains the request."""

    request_id: str
    coupon_id: int
    user_id: int
    #: records ahead in the partition, other coupons' included; None when the gate has no progress for the partition
    position: int | None


class IssuanceAcceptor:
    """Accepts requests, many at a time."""

    def __init__(
        self,
        gate: AsyncGate,
        database_gate: DatabaseGate,
        coupon_ids: CouponIds,
        fill_pool: FillPool,
        appends: AppendTracker,
        ids: RequestIds,
        log_watch: LogWatch,
        now_ms: Callable[[], int],
    ) -> None:
        self._gate = gate
        self._database_gate = database_gate
        self._coupon_ids = coupon_ids
        self._fill_pool = fill_pool
        self._appends = appends
        self._ids = ids
        self._log_watch = log_watch
        self._now_ms = now_ms

    async def accept(self, coupon_id: int, user_id: int, fault: str | None = None) -> Receipt:
        """Return a receipt once Kafka has acknowledged the record; raise Refused or Unavailable.

        fault: a failure for the issuer to inject; None outside tests.

        Raises NotProduced (on the first append attempt the seat is released; on a repeat it is kept, because the record
        of an earlier attempt may be in the log), ProduceUnconfirmed (seat kept; the record may be in the log) or
        another Unavailable. After a crash before the produce, a repeat or `maintenance.release_expired` resolves the
        seat. After a crash later, a repeat is produced under the same request id and treated as a redelivery.
        """
        now_ms = self._now_ms()
        seat = SeatRequest(coupon_id, user_id, self._ids.mint(coupon_id, user_id, now_ms), now_ms)
        bind_contextvars(request_id=seat.request_id, coupon_id=coupon_id)
        try:
            self._log_watch.require_open_log()
            if not self._coupon_ids.is_known_range(coupon_id) and not await self._coupon_ids.may_exist(coupon_id):
                raise Refused(ReasonCode.UNKNOWN_COUPON)
            admission = await self._admit(seat)
            is_first_attempt = admission.verdict is Verdict.ADMITTED
            if not is_first_attempt:
                seat = await self._repeat_or_refuse(seat, admission)
            crash_points.reach(CrashPoint.API_ADMITTED)
            log_position = await self._appends.start(seat, fault, is_first_attempt=is_first_attempt).wait()
            crash_points.reach(CrashPoint.API_ACKNOWLEDGED)
        except Refused as refusal:
            _REFUSED[refusal.code].inc()
            raise
        except Unavailable:
            _UNAVAILABLE.inc()
            raise
        _ACCEPTED.inc()
        position = records_ahead(log_position.offset, admission.progress.get(log_position.partition))
        return Receipt(seat.request_id, coupon_id, user_id, position)

    async def _admit(self, seat: SeatRequest) -> Admission:
        """Return the verdict. A cold gate is filled first; without Redis the verdict comes from the database gate."""
        try:
            admission = await self._gate.admit(seat)
            if admission.verdict is not Verdict.COLD:
                return admission
            await self._fill_pool.fill(seat.coupon_id)
            admission = await self._gate.admit(seat)
        except Unavailable as error:
            if error.part != "Redis":
                raise
            return await self._database_gate.admit(seat)
        if admission.verdict is Verdict.COLD:
            raise Unavailable("The gate", "it is being filled")
        return admission

    async def _repeat_or_refuse(self, seat: SeatRequest, admission: Admission) -> SeatRequest:
        """Return the seat of an earlier request whose outcome is not known, to be produced again; else raise Refused.

        A repeat waits for the acknowledgement of the first one, if this process is producing it.
        """
        verdict, detail = admission.verdict, admission.detail
        if verdict is not Verdict.UNACKNOWLEDGED:
            raise Refused(
                _REFUSALS[verdict],
                first_request_id=detail if verdict is Verdict.DUPLICATE else None,
                opens_at_ms=int(detail) if verdict is Verdict.NOT_OPEN else None,
            )
        seat = seat._replace(request_id=detail)
        bind_contextvars(request_id=seat.request_id)
        first = self._appends.find(seat.request_id)
        if await (self._database_gate.has_decided(seat) if first is None else first.is_acknowledged()):
            raise Refused(ReasonCode.DUPLICATE, first_request_id=seat.request_id)
        return seat
