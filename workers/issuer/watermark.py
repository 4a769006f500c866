"""The idle clock: notes that all that was appended to a partition read to its end has been decided."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from confluent_kafka import KafkaException

from service.domain.failures import classify
from service.resources import Resources
from service.store import checkpoints, engine
from service.store.checkpoints import CheckpointAdvance
from service.stream import clients, log_reader
from service.stream.log_reader import PartitionRanges
from service.stream.topics import Topic
from workers.issuer.assignment import Assignment
from workers.issuer.health import Health

_log = logging.getLogger(__name__)
_EVERY_SECONDS = 2.0
_LEARN_SECONDS = 1.0


class Watermark:
    """Asks the broker from a thread of its own; the loop goes on and takes the answer when it is there.

    It has a consumer of its own, too: on the loop's a question would wait behind the records that are fetched.
    """

    def __init__(self, resources: Resources, health: Health) -> None:
        self._resources = resources
        self._health = health
        self._consumer = clients.build_offset_watcher(resources.settings)
        self._asking = ThreadPoolExecutor(1, "idle clock")
        self._asked: Future[tuple[int | None, PartitionRanges]] | None = None
        self._next = 0.0

    def close(self) -> None:
        """Lets the question under way end."""
        self._asking.shutdown()
        self._consumer.close()

    def poll(self, assignment: Assignment) -> None:
        """Takes in an answer that has come, or asks if it is time to; never waits for Kafka or the database."""
        if self._asked and self._asked.done():
            (asked_at_ms, found), self._asked = self._asked.result(), None
            if assignment.next_offsets:
                self._tell(found.errors)
                self._asking.submit(self._note, dict(assignment.next_offsets), found.ranges, asked_at_ms)
        elif not self._asked and assignment.next_offsets and time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_SECONDS
            self._asked = self._asking.submit(self._ask, sorted(assignment.next_offsets))

    def _ask(self, partitions: list[int]) -> tuple[int | None, PartitionRanges]:
        """Where the log ends, and a moment before it was asked, which is unknown while the database is away."""
        self._consumer.poll(0)  # lets the client say what it has to say
        asked_at_ms = self._now_ms()
        found = log_reader.offset_ranges(self._consumer, Topic.ISSUE_COUPON, partitions)
        if found.errors:
            self._learn()
        return asked_at_ms, found

    def _now_ms(self) -> int | None:
        """By the database's clock: what this process takes for the time may be an hour ahead."""
        try:
            with self._resources.engine.begin() as tx:
                return (
                    engine.to_milliseconds(engine.database_now(tx)) - 1
                )  # others may be appended in the very millisecond
        except Exception as error:  # noqa: BLE001  # only the idle clock stands still; issuing will say more
            _still(error)
            return None

    def _learn(self) -> None:
        """A client told by a broker that has not loaded the topic yet takes it for absent until it is asked again."""
        with suppress(KafkaException):
            self._consumer.list_topics(Topic.ISSUE_COUPON, timeout=_LEARN_SECONDS)

    def _tell(self, away: dict[int, str]) -> None:
        """The health tells whether all leaders answered."""
        if away:
            self._health.set_unready("kafka", "; ".join(f"partition {at}: {why}" for at, why in away.items()))
        else:
            self._health.set_ready("kafka")

    def _note(self, positions: dict[int, int], bounds: dict[int, tuple[int, int]], asked_at_ms: int | None) -> None:
        """What lies behind a position that is at the end, as told after a moment, was appended after that moment.

        What has passed never comes back. A position that is not the database's any more moves nothing.
        """
        read = [at for at, (_, end) in sorted(bounds.items()) if positions.get(at, -1) >= end]
        if not read or asked_at_ms is None:
            return
        moves = [CheckpointAdvance(at, positions[at], positions[at], asked_at_ms) for at in read]
        try:
            with self._resources.engine.begin() as tx:
                checkpoints.advance(tx, self._resources.log_id, moves)
        except Exception as error:  # noqa: BLE001  # only the idle clock stands still; issuing will say more
            _still(error)


def _still(error: Exception) -> None:
    _log.info("the idle clock stands still: %s", classify(error))
