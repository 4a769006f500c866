"""Accepts requests for coupons, many at a time: seats at the gate, records in the log, answers once Kafka has them."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, NamedTuple

from service import tracing
from service.domain.errors import BacklogFull, ProduceUnconfirmed, RateLimited, Refused, Unavailable
from service.domain.rate_limit import Exceeded, LimitScope
from service.domain.request import ReasonCode
from service.domain.request_id import RequestIds
from service.gate.async_gate import MAX_REQUESTS_PER_CALL, Admission, AsyncGate
from service.gate.batcher import BatchQueue
from service.gate.keys import Verdict
from service.log import bind_contextvars
from service.metrics import ACCEPT_SECONDS, GATE_CALL_REQUESTS, GATE_CALL_SECONDS, PRODUCE_SECONDS
from service.usecases.append_tracker import AppendTracker, PendingRequest
from service.usecases.coupon_ids import CouponIds
from service.usecases.fill_pool import FillPool
from service.usecases.gate_fallback import DatabaseGate
from service.usecases.log_watch import LogWatch

#: requests that may wait for a call of the gate; more are refused as unavailable
MAX_WAITING = 20_000
#: Minimum time between two calls of the gate. The fixed CPU cost of a call is about that of accepting the requests of
#: 2 ms.
_MIN_INTERVAL_SECONDS = 0.002
#: how long an offset waits for a request whose call of the gate records it; then it gets a call of its own
_OFFSETS_LINGER_SECONDS = 0.005
#: how long a process that ends waits for the gate and the database, and then for the gate to take offsets
_DRAIN_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
_REFUSALS = {
    Verdict.DUPLICATE: ReasonCode.DUPLICATE,
    Verdict.SOLD_OUT: ReasonCode.SOLD_OUT,
    Verdict.NOT_OPEN: ReasonCode.NOT_OPEN,
    Verdict.CLOSED: ReasonCode.CLOSED,
    Verdict.PAUSED: ReasonCode.PAUSED,
    Verdict.UNKNOWN_COUPON: ReasonCode.UNKNOWN_COUPON,
}


_ADMITTED = Admission(Verdict.ADMITTED, "")


class Receipt(NamedTuple):
    """The content of a 202, which is sent only when the log contains the request."""

    request_id: str
    coupon_id: int
    user_id: int
    #: records ahead in the partition, other coupons' included; None when the gate has no progress for the partition
    position: int | None


class _AwaitedRequest(PendingRequest):
    """A request whose caller awaits the receipt."""

    __slots__ = ("receipt",)

    def __init__(self, coupon_id: int, user_id: int, fault: str | None) -> None:
        super().__init__(coupon_id, user_id, fault)
        self.receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()

    def on_accepted(self, position: int | None) -> None:
        if not self.receipt.done():  # the caller was cancelled
            self.receipt.set_result(Receipt(self.request_id, self.coupon_id, self.user_id, position))

    def on_failed(self, error: Exception) -> None:
        if not self.receipt.done():
            self.receipt.set_exception(error)


class IssuanceAcceptor:
    """Accepts requests in batches: those that arrive during a call of the gate are in the next one."""

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
        self._loop = asyncio.get_running_loop()
        self._gate_calls: BatchQueue[PendingRequest] = BatchQueue(
            "Redis",
            self._call_gate,
            max_batch_size=MAX_REQUESTS_PER_CALL,
            max_waiting=MAX_WAITING,
            min_interval_seconds=_MIN_INTERVAL_SECONDS,
            on_idle=self._record_soon,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        appends.on_first_acknowledged = self._record_soon

    async def accept(self, coupon_id: int, user_id: int, address: str = "", fault: str | None = None) -> Receipt:
        """Return a receipt once Kafka has acknowledged the record; raise Refused, RateLimited or Unavailable.

        address: the client's, if requests are limited by address.
        fault: a failure for the issuer to inject; None outside tests.

        Raises NotProduced (on the first append attempt the seat is released; on a repeat it is kept, because the record
        of an earlier attempt may be in the log), ProduceUnconfirmed (seat kept; the record may be in the log) or
        another Unavailable.
        """
        request = _AwaitedRequest(coupon_id, user_id, fault)
        request.address = address
        request.trace = tracing.current_request()
        self.submit(request)
        try:
            return await request.receipt
        finally:
            bind_contextvars(request_id=request.request_id, coupon_id=coupon_id)

    def submit(self, request: PendingRequest) -> None:
        """Give the request an id, and admit it with the next batch; it is answered later, or now with Unavailable.

        After a crash before the produce, a repeat or `maintenance.release_expired` resolves the seat. After a crash
        later, a repeat is produced under the same request id and treated as a redelivery.
        """
        try:
            request.request_id = self._ids.mint(request.coupon_id, request.user_id, self._now_ms())
            self._log_watch.require_open_log()
            if self._coupon_ids.is_known_range(request.coupon_id):
                self._gate_calls.add(request)
            else:
                self._start(request, self._admit_if_created(request))
        except Unavailable as error:
            request.fail(error)

    async def drain(self) -> None:
        """Wait until every request is refused or produced, at most _DRAIN_SECONDS."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while tasks := {*self._tasks, *([self._gate_calls.task] if self._gate_calls.task else ())}:
                    await asyncio.wait(tasks)

    async def close(self) -> None:
        """Record in the gate what was acknowledged, as far as it takes it within _CLOSE_SECONDS."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.drain()
                while self._appends.has_acknowledged():
                    await self._call_gate([])

    def _record_soon(self) -> None:
        if self._appends.has_acknowledged():
            self._loop.call_later(_OFFSETS_LINGER_SECONDS, self._record, context=Context())

    def _record(self) -> None:
        """Call the gate, unless another call has already taken what this one was for."""
        if self._appends.has_acknowledged():
            self._gate_calls.call_soon()

    async def _call_gate(self, batch: list[PendingRequest]) -> None:
        """Admit a batch of requests and produce those that have a seat; record what was acknowledged before.

        If the process is killed between two lines, no admitted request of the batch has an answer, and some may be in
        the log. `submit` says what resolves them.
        """
        acknowledged = self._appends.take_acknowledged()
        began = self._loop.time()
        try:
            others, progress, now_ms = await self._gate.admit(
                batch, acknowledged, backlog_full=self._appends.backlog.is_full
            )
        except Exception as error:  # noqa: BLE001  # every request of the batch gets an answer
            self._appends.forget_lost(acknowledged, error)
            self._appends.backlog.update({})
            now_ms = self._now_ms()
            for request in batch:
                request.requested_at_ms = now_ms
                if isinstance(error, Unavailable):
                    self._start(request, self._admit_by_database(request))
                else:
                    request.fail(error)
            return
        answered_at = self._loop.time()
        GATE_CALL_SECONDS.observe(answered_at - began)
        self._appends.forget_soon(acknowledged)
        self._appends.backlog.update(progress)
        for index, request in enumerate(batch):
            request.requested_at_ms = now_ms
            try:
                self._conclude(request, others.get(index, _ADMITTED), progress)
            except Exception as error:  # noqa: BLE001  # the others of the batch go on
                request.fail(error)
        self._measure(batch, others, answered_at)

    def _measure(self, batch: list[PendingRequest], others: Mapping[int, Admission], admitted_at: float) -> None:
        """Measure the first admitted request of a batch for all of them: a measurement of each would cost as much.

        It waited longest, so the times are upper bounds. `others`: verdicts other than ADMITTED, by index.
        """
        if batch:
            GATE_CALL_REQUESTS.observe(len(batch))
        first = next((request for index, request in enumerate(batch) if index not in others), None)
        if first is not None:
            times = self._gate_calls.batch_waiting_since, admitted_at
            first.acknowledgement().add_done_callback(partial(self._observe, times, len(batch) - len(others)))

    def _observe(self, times: tuple[float, float], count: int, acknowledged: "asyncio.Future[bool]") -> None:
        if acknowledged.result():
            now, (waiting_since, admitted_at) = self._loop.time(), times
            PRODUCE_SECONDS.observe_many(now - admitted_at, count)
            ACCEPT_SECONDS.observe_many(now - waiting_since, count)

    def _conclude(self, request: PendingRequest, admission: Admission, progress: Mapping[int, int]) -> None:
        """Act on a verdict."""
        verdict, detail = admission
        if verdict is Verdict.ADMITTED:
            self._appends.start(request, progress)
        elif verdict is Verdict.COLD:
            self._start(request, self._fill(request))
        elif verdict is Verdict.UNACKNOWLEDGED:
            request.request_id = detail
            self._start(request, self._repeat(request, progress))
        elif verdict is Verdict.BACKLOG_FULL:
            request.fail(BacklogFull())
        elif verdict is Verdict.RATE_LIMITED:
            name, wait_us = detail.split()
            scope = LimitScope(name)
            request.fail(RateLimited(Exceeded(scope, self._gate.limits[scope], int(wait_us))))
        else:
            first_request_id = detail if verdict is Verdict.DUPLICATE else None
            opens_in_ms = int(detail) - request.requested_at_ms if verdict is Verdict.NOT_OPEN else None
            request.fail(Refused(_REFUSALS[verdict], first_request_id=first_request_id, opens_in_ms=opens_in_ms))

    async def _fill(self, request: PendingRequest) -> None:
        """Fill the gate for the coupon, then call it again; without Redis the verdict comes from the database.

        The gate charges the request only when it is called again. Until then the limits of this process apply, so that
        the requests which a caller sends in the meantime do not all cause a fill.
        """
        if request.was_filled:
            raise Unavailable("The gate", "it is being filled")
        self._database_gate.charge(request)
        request.was_filled = True
        try:
            await self._fill_pool.fill(request.coupon_id)
        except Unavailable as error:
            if error.part != "Redis":
                raise
            await self._admit_by_database(request)
        else:
            self._gate_calls.add(request)

    async def _admit_if_created(self, request: PendingRequest) -> None:
        """Let the gate refuse a request for a coupon that was never created, because it charges every request."""
        request.coupon_exists = await self._coupon_ids.may_exist(request.coupon_id)
        self._gate_calls.add(request)

    async def _admit_by_database(self, request: PendingRequest) -> None:
        """Without Redis the verdict comes from the database, and the limits of this process apply."""
        if not request.was_filled:  # then it was charged before the fill
            self._database_gate.charge(request)
        self._conclude(request, await self._database_gate.admit(request), {})

    async def _repeat(self, request: PendingRequest, progress: Mapping[int, int]) -> None:
        """Produce a request again whose outcome is not known; it is a duplicate if its record is in the log.

        A repeat waits for the acknowledgement of the first one, if this process is producing it. If that fails, one of
        those that waited is produced and the others wait for it, so that a stall of Kafka does not multiply records. No
        record gets an id that the issuer would not take for ours.
        """
        first = self._appends.find(request.request_id)
        if await (self._database_gate.has_decided(request) if first is None else first.is_acknowledged()):
            raise Refused(ReasonCode.DUPLICATE, first_request_id=request.request_id)
        other = self._appends.find(request.request_id)
        if other is not None and other is not first:  # of the repeats that waited, another one is being produced
            if await other.is_acknowledged():
                raise Refused(ReasonCode.DUPLICATE, first_request_id=request.request_id)
            raise ProduceUnconfirmed("Kafka", "a repeat of the same request was not confirmed either")
        if self._appends.backlog.is_full:
            raise BacklogFull
        self._ids.require_repeatable(request.request_id, self._now_ms())
        request.is_first_attempt = False
        self._appends.start(request, progress)

    def _start(self, request: PendingRequest, work: Coroutine[Any, Any, None]) -> None:
        """Run what a request waits for beside other requests; what it raises is the request's answer."""

        async def run() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001  # answered as the application's exception handlers do
                request.fail(error)

        task = self._loop.create_task(run(), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
