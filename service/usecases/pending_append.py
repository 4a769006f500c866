"""Step 3: one request's way to the log, and who waits for the broker's word on it."""

import asyncio

from service.domain.errors import CouponsError
from service.domain.request import LogPosition
from service.gate.async_gate import SeatRequest
from service.stream.producer import ProduceOutcome


class PendingAppend:
    """One request's way to the log; it goes on when those who wait for its end have gone."""

    __slots__ = ("_outcome", "_waiting", "is_first_attempt", "seat")

    def __init__(self, seat: SeatRequest, *, is_first_attempt: bool) -> None:
        self.seat = seat
        #: nobody has tried to append this request before
        self.is_first_attempt = is_first_attempt
        self._outcome: ProduceOutcome | None = None
        self._waiting: list[asyncio.Future[LogPosition]] = []

    def wait(self) -> "asyncio.Future[LogPosition]":
        """The broker's word, for one who waits: the record's place, or NotSent or Unknown."""
        word: asyncio.Future[LogPosition] = asyncio.get_running_loop().create_future()
        if self._outcome is None:
            self._waiting.append(word)
        else:
            _say(word, self._outcome)
        return word

    def resolve(self, outcome: ProduceOutcome) -> None:
        """Tells all who wait."""
        self._outcome = outcome
        for word in self._waiting:
            if not word.done():
                _say(word, outcome)
        self._waiting.clear()


def _say(word: "asyncio.Future[LogPosition]", outcome: ProduceOutcome) -> None:
    if isinstance(outcome, CouponsError):
        word.set_exception(outcome)
    else:
        word.set_result(outcome)
