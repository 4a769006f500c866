"""Step 4: poll, issue, tell; the only place that moves offsets. What comes next is read while a poll is written."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from confluent_kafka import Consumer, KafkaException, TopicPartition

from service import crash
from service.bootstrap import Common
from service.clock import jitter
from service.crash import Point
from service.domain.errors import Fenced, Unavailable
from service.domain.fates import failure_of
from service.domain.record import Record
from service.domain.retry import backoff_seconds
from service.metrics import DECISIONS, POLL_RECORDS, POLL_SECONDS
from service.store import offsets
from service.stream import log_reader
from service.stream.topics import Topic
from service.usecases.issue import Issuer
from service.usecases.plan import Issued
from workers.issuer.assignment import Assignment
from workers.issuer.health import Health
from workers.issuer.idle import IdleClock
from workers.issuer.intake import Intake
from workers.issuer.teller import Teller

_log = logging.getLogger(__name__)
_IDLE_SECONDS = 0.2
_BOUNDS_SECONDS = 1.0
#: each silent leader costs a look its second; after so many the rest is not asked until they answer
_AWAY_MOST = 3
_RENEW_SECONDS = 1.0
_BACKOFF_CEILING_SECONDS = 5.0


class Loop:
    """One consumer at a time; a system failure pauses, a restart begins at the database's offsets.

    One thread reads and keeps the positions; a second one issues, a poll after the other. What was read while a poll
    was written counts only once that poll's end is known: whatever its partitions lost is dropped then.
    """

    def __init__(
        self, common: Common, connect: Callable[[], Consumer], issuer: Issuer, teller: Teller, health: Health
    ) -> None:
        self._common = common
        self._connect = connect
        self._issuer = issuer
        self._teller = teller
        self._health = health
        self._issuing = ThreadPoolExecutor(1, "issuing")
        self._under_way: tuple[list[Record], Future[Issued]] | None = None
        self._renew()
        self._stopping = False
        self._failures = 0
        self._not_before = 0.0
        self._idle = IdleClock(common, health)

    def stop(self) -> None:
        """Lets the poll under way finish, then ends."""
        self._stopping = True

    def run(self) -> None:
        """Issues until stopped; a consumer that cannot go on is replaced."""
        while not self._stopping:
            try:
                self._follow()
            except KafkaException as error:
                _log.error("the consumer is replaced: %s", error)
                self._health.red("issuer", str(error))
                self._leave()
                time.sleep(_RENEW_SECONDS)
                self._renew()

    def close(self) -> None:
        """Leaves the group once the poll under way has ended."""
        self._leave()
        self._issuing.shutdown()
        self._idle.close()

    def _leave(self) -> None:
        self._settle()
        self._consumer.close()

    def _renew(self) -> None:
        self._consumer = self._connect()
        self._assignment = Assignment(self._consumer, self._health, self._settle)
        self._intake = Intake(self._consumer, self._assignment, self._common.reader)

    def _follow(self) -> None:
        """Issues until stopped; raises KafkaException when the consumer has failed for good."""
        self._assignment.subscribe()
        while not self._stopping:
            self._health.turned()
            self._place()
            records = self._poll()
            self._idle.turn(self._assignment)  # no poll is under way: positions are the database's
            if flowing := self._assignment.flowing(records):
                self._begin(flowing)

    def _poll(self) -> list[Record]:
        """All that is there, read while the poll before is written, and what came until that had ended."""
        most = self._common.settings.poll_records
        records = self._intake.take(most, _IDLE_SECONDS)
        self._settle()
        return records + self._intake.take(most - len(records), 0)

    def _begin(self, records: list[Record]) -> None:
        positions = dict(self._assignment.positions)
        self._under_way = records, self._issuing.submit(self._issue, records, positions)

    def _issue(self, records: Sequence[Record], positions: dict[int, int]) -> Issued:
        """Effect first, then those who are told.

        Killed before the commit: another reads the same records. Killed after it: the database's offset is past them,
        and the sweep finds what nobody was told of.
        """
        began = time.monotonic()
        issued = self._issuer.issue(records, positions)
        self._teller.tell(issued)
        crash.reach(Point.ISSUER_TOLD)
        POLL_SECONDS.observe(time.monotonic() - began)
        POLL_RECORDS.observe(len(records))
        for (state, code), count in issued.counts.items():
            DECISIONS.labels(state, code or "").inc(count)
        return issued

    def _settle(self) -> None:
        """Waits for the poll under way and takes in what became of it; afterwards none is under way."""
        while self._under_way:
            records, ending = self._under_way
            self._under_way = None
            try:
                self._take_in(records, ending.result())
            except Fenced as fenced:
                self._without(fenced, records)
            except Exception as error:  # noqa: BLE001  # whatever it was: nothing is dropped, nothing skipped
                self._trouble(records, error)

    def _take_in(self, records: Sequence[Record], issued: Issued) -> None:
        """The positions are the database's; what the poll did not come to is another poll at once."""
        self._failures = 0
        self._health.turned()
        self._assignment.advance(issued.positions)
        self._commit(issued.positions)
        if rest := self._assignment.flowing(records):
            self._begin(rest)

    def _without(self, fenced: Fenced, records: Sequence[Record]) -> None:
        """Another issuer has moved some partitions: they are placed anew, the rest of the poll goes on."""
        _log.warning("dropped: %s", fenced)
        self._assignment.pause(fenced.partitions, str(fenced))
        if rest := self._assignment.flowing(records):
            self._begin(rest)

    def _trouble(self, records: Sequence[Record], error: Exception) -> None:
        """The system failed, not a record: pause, spend no attempts, begin again at the database's offset."""
        self._assignment.pause({record.raw.place.partition for record in records}, str(failure_of(error)))
        self._back_off("issuing is paused", error)

    def _place(self) -> None:
        """Places waiting partitions at the database's offsets, once the pause after a failure is over."""
        if self._assignment.waiting:
            self._settle()  # so that the positions which are told are the database's
        if not self._assignment.waiting or time.monotonic() < self._not_before:
            return
        try:
            self._assignment.place(self._stored_offsets())
            self._teller.tell(Issued(positions=dict(self._assignment.positions)))
            self._commit(self._assignment.positions)
        except Exception as error:  # noqa: BLE001  # whatever it was: nothing flows until it is over
            self._back_off("the offsets cannot be read", error)

    def _back_off(self, what: str, error: Exception) -> None:
        self._failures += 1
        wait = backoff_seconds(self._failures, first=0.1, ceiling=_BACKOFF_CEILING_SECONDS, jitter=jitter())
        self._not_before = time.monotonic() + wait
        _log.warning("%s, next try in %.1f s: %s", what, wait, failure_of(error))

    def _stored_offsets(self) -> dict[int, int]:
        """Where waiting partitions go on; one that was never decided begins where its log begins."""
        with self._common.engine.begin() as tx:
            stored = offsets.known(tx, self._common.log)
        unknown = self._assignment.waiting - stored.keys()
        beginnings = dict(self._beginnings(unknown))
        with self._common.engine.begin() as tx:
            stored |= offsets.positions(tx, self._common.log, beginnings) if beginnings else {}
        return {partition: position.next_offset for partition, position in stored.items()}

    def _beginnings(self, partitions: Iterable[int]) -> Iterator[tuple[int, int]]:
        """First offset of those partitions whose leader answers."""
        away = 0
        for partition in partitions:
            try:
                first, _ = log_reader.bounds(self._consumer, Topic.ISSUE_COUPON, partition, _BOUNDS_SECONDS)
                yield partition, first
            except Unavailable as error:
                self._health.red(f"partition {partition}", str(error))
                away += 1
            if away == _AWAY_MOST:
                return

    def _commit(self, positions: dict[int, int]) -> None:
        """Kafka's own offsets follow, for tools that show the lag; nothing depends on them."""
        following = [TopicPartition(Topic.ISSUE_COUPON, at, position) for at, position in positions.items()]
        if not following:
            return
        try:
            self._consumer.commit(offsets=following, asynchronous=True)
        except KafkaException as error:
            _log.info("Kafka's offsets do not follow: %s", error)
