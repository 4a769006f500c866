"""Step 3: requests on their way to the log, who waits for the broker's word, and what the gate is told of it."""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from service.domain.errors import CouponsError, Unavailable
from service.domain.request import Place
from service.gate.admission import Gate, Seat
from service.stream.codec import FAULT, REQUEST_ID, encode, key_of
from service.stream.log_writer import Headers, LogWriter, NotSent, Outcome
from service.stream.partitioner import partition_of

#: notes for the gate in one call, and waiting; above it the sweep settles them
NOTES_AT_ONCE = 500
NOTES_MOST = 20_000
#: nobody waits for a note, so many share a call
NOTES_GATHER_SECONDS = 0.005
_log = logging.getLogger(__name__)


class Append:
    """One request's way to the log; it goes on when those who wait for its end have gone."""

    __slots__ = ("_outcome", "_waiting", "first", "seat")

    def __init__(self, seat: Seat, *, first: bool) -> None:
        self.seat = seat
        #: nobody has tried to append this request before
        self.first = first
        self._outcome: Outcome | None = None
        self._waiting: list[asyncio.Future[Place]] = []

    def word(self) -> "asyncio.Future[Place]":
        """The broker's word, for one who waits: the record's place, or NotSent or Unknown."""
        word: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        if self._outcome is None:
            self._waiting.append(word)
        else:
            _say(word, self._outcome)
        return word

    def end(self, outcome: Outcome) -> None:
        """Tells all who wait."""
        self._outcome = outcome
        for word in self._waiting:
            if not word.done():
                _say(word, outcome)


class Appends:
    """Effect first, then the answer.

    Killed before the ack: nobody knows, the seat is kept. Killed after it: a repeat is appended under the same
    request id, and the issuer takes the second record as a redelivery.
    """

    def __init__(self, gate: Gate, writer: LogWriter, partitions: int) -> None:
        """`partitions` is what the issuer goes by: a broker that has more of them by now moves no coupon."""
        self._gate = gate
        self._partitions = partitions
        self._writer = writer
        #: by request id, until the gate has been told: a second press waits for the first one's word
        self._under_way: dict[str, Append] = {}
        self._acknowledged: list[tuple[Append, int]] = []
        self._noting: asyncio.Task[None] | None = None
        self._releases: set[asyncio.Task[None]] = set()

    def begin(self, seat: Seat, fault: str | None, *, first: bool) -> Append:
        """Sends the request to the log."""
        append = Append(seat, first=first)
        self._under_way[seat.request_id] = append
        headers: Headers = [(REQUEST_ID, seat.request_id.encode())]
        if fault:
            headers.append((FAULT, fault.encode()))
        value = encode(seat.coupon_id, seat.user_id, seat.now_ms)
        partition = partition_of(seat.coupon_id, self._partitions)
        self._writer.append(partition, key_of(seat.coupon_id), value, headers, partial(self._heard, append))
        return append

    def under_way(self, request_id: str) -> Append | None:
        """This process's append of the request of which the gate has not been told yet."""
        return self._under_way.get(request_id)

    def _heard(self, append: Append, outcome: Outcome) -> None:
        """Tells those who wait what became of an append, and the gate, also when its caller has gone.

        Only a first try that was certainly not sent gives the seat back: a repeat's first may be in the log.
        """
        append.end(outcome)
        if isinstance(outcome, Place):
            self._note(append, outcome.offset)
        elif isinstance(outcome, NotSent) and append.first:
            release = asyncio.get_running_loop().create_task(self._release(append))
            self._releases.add(release)
            release.add_done_callback(self._releases.discard)
        else:
            self._forget(append)

    def _note(self, append: Append, offset: int) -> None:
        if len(self._acknowledged) >= NOTES_MOST:
            self._forget(append)
            _untold(Unavailable("Redis", "too many notes wait for it"))
            return
        self._acknowledged.append((append, offset))
        if self._noting is None:
            self._noting = asyncio.get_running_loop().create_task(self._note_all())

    async def _note_all(self) -> None:
        try:
            while self._acknowledged:
                await asyncio.sleep(NOTES_GATHER_SECONDS)
                some, self._acknowledged = self._acknowledged[:NOTES_AT_ONCE], self._acknowledged[NOTES_AT_ONCE:]
                await self._note_some(some)
        finally:
            self._noting = None

    async def _note_some(self, acknowledged: Sequence[tuple[Append, int]]) -> None:
        try:
            await self._gate.note([(append.seat, offset) for append, offset in acknowledged])
        except Unavailable as error:
            _untold(error)
        finally:
            for append, _ in acknowledged:
                self._forget(append)

    async def _release(self, append: Append) -> None:
        try:
            await self._gate.release(append.seat)
        except Unavailable as error:
            _untold(error)
        finally:
            self._forget(append)

    def _forget(self, append: Append) -> None:
        self._under_way.pop(append.seat.request_id, None)


def _say(word: "asyncio.Future[Place]", outcome: Outcome) -> None:
    if isinstance(outcome, CouponsError):
        word.set_exception(outcome)
    else:
        word.set_result(outcome)


def _untold(error: Unavailable) -> None:
    _log.info("the gate was not told of an append; the sweep will settle it: %s", error)
