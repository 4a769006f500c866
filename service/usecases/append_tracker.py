"""Step 3: all requests on their way to the log, and what the gate is told of what became of them."""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from service.domain.errors import Unavailable
from service.domain.request import LogPosition
from service.gate.async_gate import AsyncGate, SeatRequest
from service.stream.codec import FAULT_HEADER, REQUEST_ID_HEADER, encode_key, encode_value
from service.stream.partitioner import partition_of
from service.stream.producer import Headers, NotProduced, ProduceOutcome, RequestProducer
from service.usecases.pending_append import PendingAppend

#: notes for the gate in one call, and waiting; above it the sweep settles them
OFFSETS_BATCH_SIZE = 500
MAX_PENDING_OFFSETS = 20_000
#: nobody waits for a note, so many share a call
OFFSETS_LINGER_SECONDS = 0.005
#: how long after the gate was told a press that it had judged before may still be on its way back: Redis's own timeout
REMEMBER_SECONDS = 1.0
_log = logging.getLogger(__name__)


class AppendTracker:
    """Effect first, then the answer.

    Killed before the ack: nobody knows, the seat is kept. Killed after it: a repeat is appended under the same
    request id, and the issuer takes the second record as a redelivery.
    """

    def __init__(self, gate: AsyncGate, writer: RequestProducer, partitions: int) -> None:
        """`partitions` is what the issuer goes by: a broker that has more of them by now moves no coupon."""
        self._gate = gate
        self._partitions = partitions
        self._writer = writer
        #: by request id, until a little after the gate was told: a second press waits for the first one's word
        self._under_way: dict[str, PendingAppend] = {}
        self._acknowledged: list[tuple[PendingAppend, int]] = []
        self._noting: asyncio.Task[None] | None = None
        self._releases: set[asyncio.Task[None]] = set()

    def start(self, seat: SeatRequest, fault: str | None, *, is_first_attempt: bool) -> PendingAppend:
        """Sends the request to the log."""
        append = PendingAppend(seat, is_first_attempt=is_first_attempt)
        self._under_way[seat.request_id] = append
        headers: Headers = [(REQUEST_ID_HEADER, seat.request_id.encode())]
        if fault:
            headers.append((FAULT_HEADER, fault.encode()))
        value = encode_value(seat.coupon_id, seat.user_id, seat.requested_at_ms)
        partition = partition_of(seat.coupon_id, self._partitions)
        self._writer.produce(partition, encode_key(seat.coupon_id), value, headers, partial(self.on_delivery, append))
        return append

    def find(self, request_id: str) -> PendingAppend | None:
        """This process's append of the request of which the gate may not have known when it was asked."""
        return self._under_way.get(request_id)

    def on_delivery(self, pending: PendingAppend, outcome: ProduceOutcome) -> None:
        """Tells those who wait what became of an append, and the gate, also when its caller has gone.

        Only a first try that was certainly not sent gives the seat back: a repeat's first may be in the log.
        """
        pending.resolve(outcome)
        if isinstance(outcome, LogPosition):
            self._note(pending, outcome.offset)
        elif isinstance(outcome, NotProduced) and pending.is_first_attempt:
            release = asyncio.get_running_loop().create_task(self._release(pending))
            self._releases.add(release)
            release.add_done_callback(self._releases.discard)
        else:
            self._forget(pending)

    def _note(self, pending: PendingAppend, offset: int) -> None:
        if len(self._acknowledged) >= MAX_PENDING_OFFSETS:
            self._forget(pending)
            _untold(Unavailable("Redis", "too many notes wait for it"))
            return
        self._acknowledged.append((pending, offset))
        if self._noting is None:
            self._noting = asyncio.get_running_loop().create_task(self._note_all())

    async def _note_all(self) -> None:
        try:
            while self._acknowledged:
                await asyncio.sleep(OFFSETS_LINGER_SECONDS)
                some, self._acknowledged = (
                    self._acknowledged[:OFFSETS_BATCH_SIZE],
                    self._acknowledged[OFFSETS_BATCH_SIZE:],
                )
                await self._note_some(some)
        finally:
            self._noting = None

    async def _note_some(self, acknowledged: Sequence[tuple[PendingAppend, int]]) -> None:
        try:
            await self._gate.record_offsets([(append.seat, offset) for append, offset in acknowledged])
        except Unavailable as error:
            _untold(error)
        finally:
            asyncio.get_running_loop().call_later(REMEMBER_SECONDS, self._forget_all, acknowledged)

    def _forget_all(self, acknowledged: Sequence[tuple[PendingAppend, int]]) -> None:
        for append, _ in acknowledged:
            self._forget(append)

    async def _release(self, pending: PendingAppend) -> None:
        try:
            await self._gate.release(pending.seat)
        except Unavailable as error:
            _untold(error)
        finally:
            self._forget(pending)

    def _forget(self, pending: PendingAppend) -> None:
        if self._under_way.get(pending.seat.request_id) is pending:  # and not a repeat of it
            del self._under_way[pending.seat.request_id]


def _untold(error: Unavailable) -> None:
    _log.info("the gate was not told of an append; the sweep will settle it: %s", error)
