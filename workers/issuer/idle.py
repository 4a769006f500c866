"""The idle clock: notes that all that was appended to a partition read to its end has been decided."""

import logging
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from confluent_kafka import KafkaException

from service.bootstrap import Common
from service.domain.fates import failure_of
from service.store import engine, offsets
from service.store.offsets import Move
from service.stream import clients, log_reader
from service.stream.log_reader import Bounds
from service.stream.topics import Topic
from workers.issuer.assignment import Assignment
from workers.issuer.health import Health

_log = logging.getLogger(__name__)
_EVERY_SECONDS = 2.0
_LEARN_SECONDS = 1.0


class IdleClock:
    """Asks the broker from a thread of its own; the loop goes on and takes the answer when it is there.

    It has a consumer of its own, too: on the loop's a question would wait behind the records that are fetched.
    """

    def __init__(self, common: Common, health: Health) -> None:
        self._common = common
        self._health = health
        self._consumer = clients.watching_consumer(common.settings)
        self._asking = ThreadPoolExecutor(1, "idle clock")
        self._asked: Future[Bounds] | None = None
        self._asked_at = 0.0
        self._next = 0.0

    def close(self) -> None:
        """Lets the question under way end."""
        self._asking.shutdown()
        self._consumer.close()

    def turn(self, assignment: Assignment) -> None:
        """Takes in an answer that has come, or asks if it is time to; never waits for Kafka or the database."""
        if self._asked and self._asked.done():
            found, self._asked = self._asked.result(), None
            if assignment.positions:
                self._tell(found.away)
                self._asking.submit(self._note, dict(assignment.positions), found.known, self._asked_at)
        elif not self._asked and assignment.positions and time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_SECONDS
            self._asked_at = time.monotonic()
            self._asked = self._asking.submit(self._ask, sorted(assignment.positions))

    def _ask(self, partitions: list[int]) -> Bounds:
        self._consumer.poll(0)  # lets the client say what it has to say
        found = log_reader.look(self._consumer, Topic.ISSUE_COUPON, partitions)
        if found.away:
            self._learn()
        return found

    def _learn(self) -> None:
        """A client told by a broker that has not loaded the topic yet takes it for absent until it is asked again."""
        with suppress(KafkaException):
            self._consumer.list_topics(Topic.ISSUE_COUPON, timeout=_LEARN_SECONDS)

    def _tell(self, away: dict[int, str]) -> None:
        """The health tells whether all leaders answered."""
        if away:
            self._health.red("kafka", "; ".join(f"partition {at}: {why}" for at, why in away.items()))
        else:
            self._health.green("kafka")

    def _note(self, positions: dict[int, int], bounds: dict[int, tuple[int, int]], asked_at: float) -> None:
        """What lies behind a position that is at the end, as told after a moment, was appended after that moment.

        The moment is told by the database's clock: what this process takes for the time may be an hour ahead, and what
        has passed never comes back. A position that is not the database's any more moves nothing.
        """
        read = [at for at, (_, end) in sorted(bounds.items()) if positions.get(at, -1) >= end]
        if not read:
            return
        try:
            with self._common.engine.begin() as tx:
                now_ms = engine.milliseconds(engine.now(tx))
                asked_at_ms = now_ms - math.ceil(1000 * (time.monotonic() - asked_at))
                moves = [Move(at, positions[at], positions[at], asked_at_ms) for at in read]
                offsets.advance(tx, self._common.log, moves)
        except Exception as error:  # noqa: BLE001  # only the idle clock stands still; issuing will say more
            _log.info("the idle clock stands still: %s", failure_of(error))
