"""Tracks pending appends: produces requests, answers them with the outcome, keeps what the gate must be told."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from service import crash_points
from service.crash_points import CrashPoint
from service.domain.errors import BacklogFull, NotProduced, RateLimited, Refused, Unavailable
from service.domain.request import LogPosition, ReasonCode, records_ahead
from service.gate.async_gate import MAX_REQUESTS_PER_CALL, AsyncGate, SeatRequest
from service.log import get_logger
from service.log_events import LogEvent
from service.metrics import ISSUE_RESPONSES
from service.stream.codec import FAULT_HEADER, REQUEST_ID_HEADER, encode_key, encode_value
from service.stream.partitioner import partition_of
from service.stream.producer import Headers, ProduceOutcome, RequestProducer
from service.stream.topics import Topic
from service.tracing import TRACEPARENT, RequestTrace
from service.usecases.backlog import Backlog

#: Maximum number of offsets that wait to be recorded in the gate. Above this number an offset is dropped;
#: `maintenance.release_expired` resolves its request.
MAX_PENDING_OFFSETS = 20_000
#: an entry is kept one Redis timeout after the gate was updated: an older verdict may still be in flight
REMEMBER_SECONDS = 1.0
_ACCEPTED, _UNAVAILABLE = ISSUE_RESPONSES.labels("accepted"), ISSUE_RESPONSES.labels("unavailable")
_RATE_LIMITED, _BACKLOG_FULL = ISSUE_RESPONSES.labels("rate_limited"), ISSUE_RESPONSES.labels("backlog_full")
_REFUSED = {
    code: ISSUE_RESPONSES.labels(code)
    for code in (
        ReasonCode.DUPLICATE,
        ReasonCode.SOLD_OUT,
        ReasonCode.NOT_OPEN,
        ReasonCode.CLOSED,
        ReasonCode.PAUSED,
        ReasonCode.UNKNOWN_COUPON,
    )
}
_log = get_logger(__name__)


class PendingRequest(SeatRequest):
    """A request on its way from its caller to the log. It is answered once, from the event loop: `accept` or `fail`.

    A subclass passes the answer on to the caller, who may be gone: the request goes on without one.
    """

    __slots__ = ("_outcome", "_waiters", "fault", "is_first_attempt", "next_offset", "trace", "was_filled")

    def __init__(self, coupon_id: int, user_id: int, fault: str | None = None) -> None:
        """`fault` is a failure for the issuer to inject; None outside tests."""
        super().__init__(coupon_id, user_id, "", 0)
        self.fault = fault
        #: this request was never produced before
        self.is_first_attempt = True
        #: the gate was filled for it
        self.was_filled = False
        #: the partition's next offset to decide when the request was admitted; None if the gate does not have it
        self.next_offset: int | None = None
        #: None: the request is not traced
        self.trace: RequestTrace | None = None
        self._outcome: ProduceOutcome | None = None
        #: repeats that wait for the outcome, and its measurement
        self._waiters: list[asyncio.Future[bool]] | None = None

    def on_accepted(self, position: int | None) -> None:
        """Answer that the log has the request. `position`: the number of records ahead; None if unknown."""
        raise NotImplementedError

    def on_failed(self, error: Exception) -> None:
        """Answer that the request was not accepted: Refused, RateLimited, Unavailable or a defect."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        if isinstance(error, Refused):
            _REFUSED[error.code].inc()
        elif isinstance(error, RateLimited):
            _RATE_LIMITED.inc()
        elif isinstance(error, BacklogFull):
            _BACKLOG_FULL.inc()
        elif isinstance(error, Unavailable):
            _UNAVAILABLE.inc()
        self.on_failed(error)

    def resolve(self, outcome: ProduceOutcome) -> None:
        """Answer with the outcome of the append, the caller and those who wait for it."""
        self._outcome = outcome
        try:
            if isinstance(outcome, LogPosition):
                crash_points.reach(CrashPoint.API_ACKNOWLEDGED)
                _ACCEPTED.inc()
                self.on_accepted(records_ahead(outcome.offset, self.next_offset))
            else:
                self.fail(outcome)
        finally:
            for waiter in self._waiters or ():
                if not waiter.done():  # its caller was cancelled
                    waiter.set_result(isinstance(outcome, LogPosition))
            self._waiters = None

    async def is_acknowledged(self) -> bool:
        """Wait for the outcome; return whether the broker has acknowledged the record."""
        return await self.acknowledgement()

    def acknowledgement(self) -> "asyncio.Future[bool]":
        """Return the future outcome: whether the broker has acknowledged the record."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._outcome is not None:
            waiter.set_result(isinstance(self._outcome, LogPosition))
        elif self._waiters is None:
            self._waiters = [waiter]
        else:
            self._waiters.append(waiter)
        return waiter


class AppendTracker:
    """Appends requests to the log. Keeps one entry per request: `start`, then `on_delivery`, then the gate's update."""

    def __init__(
        self,
        gate: AsyncGate,
        producer: RequestProducer,
        partitions: int,
        backlog: Backlog,
        request_id_in: Literal["header", "value", "both"] = "header",
    ) -> None:
        """`partitions` is TOPIC_PARTITIONS, not the topic's own number: added partitions must not move a coupon.

        request_id_in: where a record has its request id.
        """
        self.backlog = backlog
        self._gate = gate
        self._partitions = partitions
        self._id_in_header = request_id_in != "value"
        self._id_in_value = request_id_in != "header"
        self._producer = producer
        #: by request id, until shortly after the gate was updated: a repeat waits here for the first one's outcome
        self._pending: dict[str, PendingRequest] = {}
        #: acknowledged requests with their offsets, which the gate does not have yet
        self._acknowledged: list[tuple[PendingRequest, int]] = []
        self._releasing: set[asyncio.Task[None]] = set()
        #: called when the first of these requests was added
        self.on_first_acknowledged: Callable[[], object] = lambda: None

    def find(self, request_id: str) -> PendingRequest | None:
        """Return this process's append of the request, which the gate's verdict may not reflect yet."""
        return self._pending.get(request_id)

    def start(self, request: PendingRequest, progress: Mapping[int, int]) -> None:
        """Produce the request, which has a seat; `on_delivery` is called with the outcome.

        progress: next offset to decide by partition, for the request's position.
        """
        crash_points.reach(CrashPoint.API_ADMITTED)
        self._pending[request.request_id] = request
        headers: Headers = [(REQUEST_ID_HEADER, request.request_id.encode())] if self._id_in_header else []
        if request.fault:
            headers.append((FAULT_HEADER, request.fault.encode()))
        if request.trace is not None:
            headers.append((TRACEPARENT, request.trace.start_append(Topic.ISSUE_COUPON, request.request_id)))
        in_value = request.request_id if self._id_in_value else None
        value = encode_value(request.coupon_id, request.user_id, request.requested_at_ms, in_value)
        partition = partition_of(request.coupon_id, self._partitions)
        request.next_offset = progress.get(partition)
        on_delivery = partial(self.on_delivery, request)
        self._producer.produce(partition, encode_key(request.coupon_id), value, headers, on_delivery)
        crash_points.reach(CrashPoint.API_PRODUCED)

    def on_delivery(self, request: PendingRequest, outcome: ProduceOutcome) -> None:
        """Answer the request, then keep or release its seat.

        Acknowledged: the offset is to be recorded, so that the gate answers a repeat as a duplicate. Certainly not sent
        on the first append attempt: the seat is released. Anything else keeps the seat: the record, or that of an
        earlier append attempt, may be in the log. If the process is killed before the gate is updated,
        `maintenance.release_expired` resolves the request.
        """
        if request.trace is not None:
            request.trace.end_append(outcome)
        request.resolve(outcome)
        if isinstance(outcome, LogPosition):
            self.backlog.on_appended(outcome)
            if len(self._acknowledged) < MAX_PENDING_OFFSETS:
                self._acknowledged.append((request, outcome.offset))
                if len(self._acknowledged) == 1:
                    self.on_first_acknowledged()
                return
            _log.info(LogEvent.GATE_UPDATE_LOST, reason="too many offsets wait to be recorded")
        elif isinstance(outcome, NotProduced) and request.is_first_attempt:
            release = asyncio.get_running_loop().create_task(self._release(request))
            self._releasing.add(release)
            release.add_done_callback(self._releasing.discard)
            return
        self._forget([request])

    def has_acknowledged(self) -> bool:
        """Return whether the gate lacks an offset."""
        return bool(self._acknowledged)

    def take_acknowledged(self) -> list[tuple[PendingRequest, int]]:
        """Return the requests whose offsets the next call of the gate records.

        `forget_soon` or `forget_lost` follows.
        """
        batch = self._acknowledged[:MAX_REQUESTS_PER_CALL]
        del self._acknowledged[:MAX_REQUESTS_PER_CALL]
        return batch

    def forget_soon(self, batch: list[tuple[PendingRequest, int]]) -> None:
        """Forget requests whose offsets the gate has, once no older verdict of the gate can be on its way."""
        if batch:
            requests = [request for request, _ in batch]
            asyncio.get_running_loop().call_later(REMEMBER_SECONDS, self._forget, requests)

    def forget_lost(self, batch: list[tuple[PendingRequest, int]], reason: Exception) -> None:
        """Forget requests whose offsets the gate did not take; they are not recorded again."""
        if batch:
            _log.info(LogEvent.GATE_UPDATE_LOST, reason=str(reason), count=len(batch))
        self.forget_soon(batch)

    async def _release(self, request: PendingRequest) -> None:
        try:
            await self._gate.release(request)
        except Unavailable as error:
            _log.info(LogEvent.GATE_UPDATE_LOST, reason=str(error), request_id=request.request_id)
        finally:
            self._forget([request])

    def _forget(self, requests: list[PendingRequest]) -> None:
        for request in requests:
            if self._pending.get(request.request_id) is request:  # and not a repeat of it
                del self._pending[request.request_id]
