"""The idle clock: notes that all that was appended to a partition read to its end has been decided."""

import logging
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from service.bootstrap import Common
from service.clock import now_ms
from service.domain.errors import Unavailable
from service.domain.fates import failure_of
from service.store import offsets
from service.store.offsets import Move
from service.stream import clients, log_reader
from service.stream.topics import Topic
from workers.issuer.assignment import Assignment
from workers.issuer.health import Health

_log = logging.getLogger(__name__)
_EVERY_SECONDS = 2.0
_ANSWER_SECONDS = 1.0
#: each silent leader costs a look its second; after so many the rest is not asked until they answer
_AWAY_MOST = 3


class Ends(NamedTuple):
    """The offset after the last record of each partition whose leader answered, since a moment."""

    asked_at_ms: int
    next_offsets: dict[int, int]
    #: leaders that did not answer, and why
    away: list[str]


class IdleClock:
    """Asks the broker from a thread of its own; the loop goes on and takes the answer when it is there.

    It has a consumer of its own, too: on the loop's a question would wait behind the records that are fetched.
    """

    def __init__(self, common: Common, health: Health) -> None:
        self._common = common
        self._health = health
        self._consumer = clients.reading_consumer(common.settings)
        self._asking = ThreadPoolExecutor(1, "idle clock")
        self._asked: Future[Ends] | None = None
        self._next = 0.0

    def close(self) -> None:
        """Lets the question under way end."""
        self._asking.shutdown()
        self._consumer.close()

    def turn(self, assignment: Assignment) -> None:
        """Takes in an answer that has come, or asks if it is time to; never waits for Kafka."""
        if self._asked and self._asked.done():
            ends, self._asked = self._asked.result(), None
            if assignment.positions:
                self._tell(ends.away)
                self._note(assignment.positions, ends)
        elif not self._asked and assignment.positions and time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_SECONDS
            self._asked = self._asking.submit(self._ask, list(assignment.positions))

    def _ask(self, partitions: Iterable[int]) -> Ends:
        ends = Ends(now_ms(), {}, [])
        for partition in partitions:
            try:
                _, end = log_reader.bounds(self._consumer, Topic.ISSUE_COUPON, partition, _ANSWER_SECONDS)
                ends.next_offsets[partition] = end
            except Unavailable as error:
                ends.away.append(f"partition {partition}: {error}")
            if len(ends.away) == _AWAY_MOST:
                break
        return ends

    def _tell(self, away: list[str]) -> None:
        """The health tells whether all leaders answered."""
        if away:
            self._health.red("kafka", away[-1])
        else:
            self._health.green("kafka")

    def _note(self, positions: dict[int, int], ends: Ends) -> None:
        """A position at an end that was told after a moment has nothing before it that is older than that moment."""
        read = [at for at, end in ends.next_offsets.items() if positions.get(at, -1) >= end]
        moves = [Move(at, positions[at], positions[at], ends.asked_at_ms) for at in read]
        try:
            with self._common.engine.begin() as tx:
                offsets.advance(tx, self._common.log, moves)
        except Exception as error:  # noqa: BLE001  # only the idle clock stands still; issuing will say more
            _log.info("the idle clock stands still: %s", failure_of(error))
