"""Step 3: one request's way to the log, and who waits for the broker's word on it."""

import asyncio

from service.domain.errors import CouponsError
from service.domain.request import LogPosition
from service.gate.async_gate import SeatRequest
from service.stream.producer import ProduceOutcome


class Append:
    """One request's way to the log; it goes on when those who wait for its end have gone."""

    __slots__ = ("_outcome", "_waiting", "first", "seat")

    def __init__(self, seat: SeatRequest, *, first: bool) -> None:
        self.seat = seat
        #: nobody has tried to append this request before
        self.first = first
        self._outcome: ProduceOutcome | None = None
        self._waiting: list[asyncio.Future[LogPosition]] = []

    def word(self) -> "asyncio.Future[LogPosition]":
        """The broker's word, for one who waits: the record's place, or NotSent or Unknown."""
        word: asyncio.Future[LogPosition] = asyncio.get_running_loop().create_future()
        if self._outcome is None:
            self._waiting.append(word)
        else:
            _say(word, self._outcome)
        return word

    def end(self, outcome: ProduceOutcome) -> None:
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
