"""Steps 1 to 3: asks the gate for a seat, appends the request to the log, and gives its receipt."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from service import crash_points
from service.crash_points import CrashPoint
from service.domain.errors import Unavailable
from service.domain.refusal import Refused
from service.domain.request import ReasonCode, records_ahead
from service.domain.request_id import RequestIds
from service.gate.async_gate import Admission, AsyncGate, SeatRequest
from service.gate.keys import Verdict
from service.metrics import ISSUE_RESPONSES
from service.usecases.append_tracker import AppendTracker
from service.usecases.gate_fallback import DatabaseGate
from service.usecases.gate_fill import GateFiller

_REFUSALS = {
    Verdict.SOLD_OUT: ReasonCode.SOLD_OUT,
    Verdict.NOT_OPEN: ReasonCode.NOT_OPEN,
    Verdict.CLOSED: ReasonCode.CLOSED,
    Verdict.PAUSED: ReasonCode.PAUSED,
    Verdict.UNKNOWN_COUPON: ReasonCode.UNKNOWN_COUPON,
}
_ACCEPTED, _UNAVAILABLE = ISSUE_RESPONSES.labels("accepted"), ISSUE_RESPONSES.labels("unavailable")
_ANSWERED = {code: ISSUE_RESPONSES.labels(code) for code in (ReasonCode.DUPLICATE, *_REFUSALS.values())}


class Receipt(NamedTuple):
    """A place in line: what a 202 tells."""

    request_id: str
    coupon_id: int
    user_id: int
    #: records ahead in the partition, other coupons' included; None when the gate does not know
    position: int | None


class IssuanceAcceptor:
    """Accepts requests, many at a time."""

    def __init__(
        self,
        gate: AsyncGate,
        truth: DatabaseGate,
        gate_filler: GateFiller,
        appends: AppendTracker,
        ids: RequestIds,
        now_ms: Callable[[], int],
    ) -> None:
        self._gate = gate
        self._truth = truth
        self._gate_filler = gate_filler
        self._appends = appends
        self._ids = ids
        self._now_ms = now_ms
        self._warming: dict[int, asyncio.Future[None]] = {}

    async def accept(self, coupon_id: int, user_id: int, fault: str | None = None) -> Receipt:
        """A receipt once the request is in the log; raises Refused, NotSent or Unknown (both Unavailable).

        After Unknown the seat is kept: the same user's repeat is appended again under the same request id.
        """
        try:
            receipt = await self._accept(coupon_id, user_id, fault)
        except Refused as refusal:
            _ANSWERED[refusal.code].inc()
            raise
        except Unavailable:
            _UNAVAILABLE.inc()
            raise
        _ACCEPTED.inc()
        return receipt

    async def _accept(self, coupon_id: int, user_id: int, fault: str | None) -> Receipt:
        now_ms = self._now_ms()
        seat = SeatRequest(coupon_id, user_id, self._ids.mint(coupon_id, user_id, now_ms), now_ms)
        judged = await self._judge(seat)
        first = judged.verdict is Verdict.ADMITTED
        if judged.verdict is Verdict.UNACKNOWLEDGED:
            seat = seat._replace(request_id=judged.detail)
            await self._settle(seat)
        elif not first:
            raise _refused(judged)
        crash_points.reach(CrashPoint.API_ADMITTED)
        place = await self._appends.start(seat, fault, is_first_attempt=first).wait()
        crash_points.reach(CrashPoint.API_ACKNOWLEDGED)
        position = records_ahead(place.offset, judged.progress.get(place.partition))
        return Receipt(seat.request_id, coupon_id, user_id, position)

    async def _judge(self, seat: SeatRequest) -> Admission:
        """The gate's word; a cold gate is filled first, and without Redis the database answers."""
        try:
            judged = await self._gate.admit(seat)
            if judged.verdict is not Verdict.COLD:
                return judged
            await self._warm(seat.coupon_id)
            judged = await self._gate.admit(seat)
        except Unavailable as error:
            if error.part != "Redis":
                raise
            return await self._truth.admit(seat)
        if judged.verdict is Verdict.COLD:
            raise Unavailable("the gate", "it is being filled")
        return judged

    async def _warm(self, coupon_id: int) -> None:
        """One filling for all who wait for it."""
        under_way = self._warming.get(coupon_id)
        if under_way is None:
            under_way = asyncio.ensure_future(asyncio.to_thread(self._gate_filler.fill, coupon_id))
            self._warming[coupon_id] = under_way
            under_way.add_done_callback(lambda _: self._warming.pop(coupon_id, None))
        await asyncio.shield(under_way)

    async def _settle(self, seat: SeatRequest) -> None:
        """Raises Refused(duplicate) when the first request is known to be in the log; otherwise it may be repeated."""
        under_way = self._appends.find(seat.request_id)
        if under_way is not None:
            try:
                await under_way.wait()
            except Unavailable:
                return
            raise Refused(ReasonCode.DUPLICATE, first_request_id=seat.request_id)
        if await self._truth.has_decided(seat):
            raise Refused(ReasonCode.DUPLICATE, first_request_id=seat.request_id)


def _refused(admission: Admission) -> Refused:
    if admission.verdict is Verdict.DUPLICATE:
        return Refused(ReasonCode.DUPLICATE, first_request_id=admission.detail)
    opens_at_ms = int(admission.detail) if admission.verdict is Verdict.NOT_OPEN else None
    return Refused(_REFUSALS[admission.verdict], opens_at_ms=opens_at_ms)
