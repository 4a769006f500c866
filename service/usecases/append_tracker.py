"""Tracks pending appends: produces records, resolves their waiters, updates the gate."""

import asyncio
from functools import partial

from service.domain.errors import NotProduced, Unavailable
from service.domain.request import LogPosition
from service.gate.async_gate import AsyncGate, SeatRequest
from service.log import get_logger
from service.log_events import LogEvent
from service.stream.codec import FAULT_HEADER, REQUEST_ID_HEADER, encode_key, encode_value
from service.stream.partitioner import partition_of
from service.stream.producer import Headers, ProduceOutcome, RequestProducer

#: maximum number of offsets that one call records in the gate
MAX_OFFSETS_PER_CALL = 500
#: Maximum number of offsets that wait for such a call. Above this number an offset is dropped;
#: `maintenance.release_expired` resolves its request.
MAX_PENDING_OFFSETS = 20_000
#: no caller waits until an offset is recorded, so many share a call
OFFSETS_LINGER_SECONDS = 0.005
#: an entry is kept one Redis timeout after the gate was updated: an older verdict may still be in flight
REMEMBER_SECONDS = 1.0
_log = get_logger(__name__)


class PendingAppend:
    """One request on its way to the log. Each waiter has its own future, so that cancelling one affects no other."""

    __slots__ = ("_outcome", "_waiters", "is_first_attempt", "seat")

    def __init__(self, seat: SeatRequest, *, is_first_attempt: bool) -> None:
        self.seat = seat
        #: this request was never produced before
        self.is_first_attempt = is_first_attempt
        self._outcome: ProduceOutcome | None = None
        self._waiters: list[asyncio.Future[LogPosition]] = []

    def wait(self) -> "asyncio.Future[LogPosition]":
        """Return a future for the record's log position; it raises NotProduced or ProduceUnconfirmed."""
        waiter: asyncio.Future[LogPosition] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if self._outcome is not None:
            self.resolve(self._outcome)
        return waiter

    async def is_acknowledged(self) -> bool:
        """Wait for the outcome; return whether the broker has acknowledged the record."""
        try:
            await self.wait()
        except Unavailable:
            return False
        return True

    def resolve(self, outcome: ProduceOutcome) -> None:
        """Set the outcome for present and later waiters."""
        self._outcome = outcome
        for waiter in self._waiters:
            if waiter.done():  # its caller was cancelled
                continue
            if isinstance(outcome, LogPosition):
                waiter.set_result(outcome)
            else:
                waiter.set_exception(outcome)
        self._waiters.clear()


class AppendTracker:
    """Appends requests to the log. Keeps one entry per request: `start`, then `on_delivery`, then the gate's update."""

    def __init__(self, gate: AsyncGate, producer: RequestProducer, partitions: int) -> None:
        """`partitions` is TOPIC_PARTITIONS, not the topic's own number: added partitions must not move a coupon."""
        self._gate = gate
        self._partitions = partitions
        self._producer = producer
        #: by request id, until shortly after the gate was updated: a repeat waits here for the first one's outcome
        self._pending: dict[str, PendingAppend] = {}
        self._acknowledged: list[tuple[PendingAppend, int]] = []
        self._recording: asyncio.Task[None] | None = None
        self._releasing: set[asyncio.Task[None]] = set()

    def find(self, request_id: str) -> PendingAppend | None:
        """Return this process's append of the request, which the gate's verdict may not reflect yet."""
        return self._pending.get(request_id)

    def start(self, seat: SeatRequest, fault: str | None, *, is_first_attempt: bool) -> PendingAppend:
        """Produce the request; `on_delivery` is called with the outcome, even if the caller was cancelled."""
        append = PendingAppend(seat, is_first_attempt=is_first_attempt)
        self._pending[seat.request_id] = append
        headers: Headers = [(REQUEST_ID_HEADER, seat.request_id.encode())]
        if fault:
            headers.append((FAULT_HEADER, fault.encode()))
        value = encode_value(seat.coupon_id, seat.user_id, seat.requested_at_ms)
        partition = partition_of(seat.coupon_id, self._partitions)
        self._producer.produce(partition, encode_key(seat.coupon_id), value, headers, partial(self.on_delivery, append))
        return append

    def on_delivery(self, append: PendingAppend, outcome: ProduceOutcome) -> None:
        """Resolve the waiters, then update the gate in the background.

        Acknowledged: the offset is recorded, so that the gate answers a repeat as a duplicate. Certainly not sent on
        the first append attempt: the seat is released. Anything else keeps the seat: the record, or that of an earlier
        append attempt, may be in the log. If the process is killed before the gate is updated,
        `maintenance.release_expired` resolves the request.
        """
        append.resolve(outcome)
        if isinstance(outcome, LogPosition):
            if len(self._acknowledged) >= MAX_PENDING_OFFSETS:
                _log.info(LogEvent.GATE_UPDATE_LOST, reason="too many offsets wait to be recorded")
                self._forget(append)
                return
            self._acknowledged.append((append, outcome.offset))
            if self._recording is None:
                self._recording = asyncio.get_running_loop().create_task(self._record_offsets())
        elif isinstance(outcome, NotProduced) and append.is_first_attempt:
            release = asyncio.get_running_loop().create_task(self._release(append))
            self._releasing.add(release)
            release.add_done_callback(self._releasing.discard)
        else:
            self._forget(append)

    async def _record_offsets(self) -> None:
        """Record acknowledged offsets in the gate, batch by batch, until none waits; a lost batch is not repeated."""
        try:
            while self._acknowledged:
                await asyncio.sleep(OFFSETS_LINGER_SECONDS)
                batch = self._acknowledged[:MAX_OFFSETS_PER_CALL]
                self._acknowledged = self._acknowledged[MAX_OFFSETS_PER_CALL:]
                try:
                    await self._gate.record_offsets([(append.seat, offset) for append, offset in batch])
                except Unavailable as error:
                    _log.info(LogEvent.GATE_UPDATE_LOST, reason=str(error), count=len(batch))
                finally:
                    appends = [append for append, _ in batch]
                    asyncio.get_running_loop().call_later(REMEMBER_SECONDS, self._forget, *appends)
        finally:
            self._recording = None

    async def _release(self, append: PendingAppend) -> None:
        try:
            await self._gate.release(append.seat)
        except Unavailable as error:
            _log.info(LogEvent.GATE_UPDATE_LOST, reason=str(error), request_id=append.seat.request_id)
        finally:
            self._forget(append)

    def _forget(self, *appends: PendingAppend) -> None:
        for append in appends:
            if self._pending.get(append.seat.request_id) is append:  # and not a repeat of it
                del self._pending[append.seat.request_id]
