"""Step 4: poll, issue, tell; the only place that moves offsets."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from service import crash
from service.bootstrap import Common
from service.clock import jitter, now_ms
from service.crash import Point
from service.domain.errors import Fenced, Unavailable
from service.domain.fates import failure_of
from service.domain.record import Record
from service.domain.retry import backoff_seconds
from service.metrics import DECISIONS, POLL_RECORDS, POLL_SECONDS
from service.store import offsets
from service.store.offsets import Move
from service.stream import log_reader
from service.stream.topics import Topic
from service.usecases.issue import Issuer
from service.usecases.plan import Issued
from workers.issuer.assignment import Assignment
from workers.issuer.health import Health
from workers.issuer.teller import Teller

_log = logging.getLogger(__name__)
_IDLE_SECONDS = 0.2
_PASS_SECONDS = 2.0
_BOUNDS_SECONDS = 1.0
_RENEW_SECONDS = 1.0
_BACKOFF_CEILING_SECONDS = 5.0


class Loop:
    """One thread, one consumer at a time; a system failure pauses, a restart begins at the database's offsets."""

    def __init__(
        self, common: Common, connect: Callable[[], Consumer], issuer: Issuer, teller: Teller, health: Health
    ) -> None:
        self._common = common
        self._connect = connect
        self._issuer = issuer
        self._teller = teller
        self._health = health
        self._renew()
        self._stopping = False
        self._failures = 0
        self._not_before = 0.0
        self._passed = 0.0

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
                self._consumer.close()
                time.sleep(_RENEW_SECONDS)
                self._renew()

    def close(self) -> None:
        """Leaves the group."""
        self._consumer.close()

    def _renew(self) -> None:
        self._consumer = self._connect()
        self._assignment = Assignment(self._consumer, self._health)

    def _follow(self) -> None:
        """Issues until stopped; raises KafkaException when the consumer has failed for good."""
        self._assignment.subscribe()
        while not self._stopping:
            self._health.turned()
            self._place()
            if records := self._poll():
                self._issue(records)
            self._pass()

    def _poll(self) -> list[Record]:
        """All that is there, or what comes first within a moment: a lone request is not kept waiting."""
        first = self._consumer.poll(_IDLE_SECONDS)
        if first is None:
            return []
        rest = self._consumer.consume(self._common.settings.poll_records - 1, timeout=0)
        messages = [message for message in chain([first], rest) if self._is_record(message)]
        return [self._common.reader.read(log_reader.raw(message)) for message in messages if self._flows(message)]

    def _is_record(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001  # its public name
            self._assignment.stop(message.partition() or 0, f"the database's offset is not in the log: {error.str()}")
        elif error.code() == KafkaError._FATAL:  # noqa: SLF001  # its public name
            raise KafkaException(error)
        else:
            _log.warning("kafka: %s", error)
        return False

    def _flows(self, message: Message) -> bool:
        """A rebalance within a poll takes partitions away: what was read of them belongs to another now."""
        position = self._assignment.positions.get(message.partition() or 0)
        return position is not None and (message.offset() or 0) >= position

    def _issue(self, records: Sequence[Record]) -> None:
        """Effect first, then the acknowledgements.

        Killed before the commit: another reads the same records. Killed after it: the database's offset is past them,
        and the sweep finds what nobody was told of. Kafka's own offset only serves tools that show the lag.
        """
        began = time.monotonic()
        try:
            issued = self._issuer.issue(records, self._assignment.positions)
        except Fenced as fenced:
            self._without(fenced, records)
            return
        except Exception as error:  # noqa: BLE001  # whatever it was: nothing is dropped, nothing skipped
            self._trouble(records, error)
            return
        self._failures = 0
        self._assignment.positions.update(issued.positions)
        self._teller.tell(issued)
        crash.reach(Point.ISSUER_TOLD)
        self._commit(issued.positions)
        POLL_SECONDS.observe(time.monotonic() - began)
        POLL_RECORDS.observe(len(records))
        for (state, code), count in issued.counts.items():
            DECISIONS.labels(state, code or "").inc(count)

    def _without(self, fenced: Fenced, records: Sequence[Record]) -> None:
        """Another issuer has moved some partitions: they are placed anew, the rest of the poll goes on."""
        _log.warning("dropped: %s", fenced)
        self._assignment.pause(fenced.partitions, str(fenced))
        if rest := [record for record in records if record.raw.place.partition not in fenced.partitions]:
            self._issue(rest)

    def _trouble(self, records: Sequence[Record], error: Exception) -> None:
        """The system failed, not a record: pause, spend no attempts, begin again at the database's offset."""
        self._assignment.pause({record.raw.place.partition for record in records}, str(failure_of(error)))
        self._back_off("issuing is paused", error)

    def _place(self) -> None:
        """Places waiting partitions at the database's offsets, once the pause after a failure is over."""
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
        beginnings = {at: bounds[0] for at, bounds in self._bounds(unknown)}
        with self._common.engine.begin() as tx:
            stored |= offsets.positions(tx, self._common.log, beginnings) if beginnings else {}
        return {partition: position.next_offset for partition, position in stored.items()}

    def _bounds(self, partitions: Iterable[int]) -> Iterator[tuple[int, tuple[int, int]]]:
        """First and next offset of those partitions whose leader answers; the health tells whether all do."""
        away = ""
        for partition in partitions:
            try:
                bounds = log_reader.bounds(self._consumer, Topic.ISSUE_COUPON, partition, _BOUNDS_SECONDS)
            except Unavailable as error:
                away = f"partition {partition}: {error}"
            else:
                yield partition, bounds
        if away:
            self._health.red("kafka", away)
        else:
            self._health.green("kafka")

    def _pass(self) -> None:
        """Every few seconds: notes that all that was appended to a partition read to its end has been decided."""
        if time.monotonic() < self._passed + _PASS_SECONDS or not self._assignment.positions:
            return
        self._passed = time.monotonic()
        until_ms = now_ms()
        positions = dict(self._assignment.positions)
        ends = {at: bounds[1] for at, bounds in self._bounds(positions)}
        moves = [Move(at, positions[at], positions[at], until_ms) for at, end in ends.items() if end == positions[at]]
        try:
            with self._common.engine.begin() as tx:
                offsets.advance(tx, self._common.log, moves)
        except Exception as error:  # noqa: BLE001  # only the idle clock stands still; issuing will say more
            _log.info("the idle clock stands still: %s", failure_of(error))

    def _commit(self, positions: dict[int, int]) -> None:
        """Kafka's own offsets follow, for tools that show the lag; nothing depends on them."""
        following = [TopicPartition(Topic.ISSUE_COUPON, at, position) for at, position in positions.items()]
        if not following:
            return
        try:
            self._consumer.commit(offsets=following, asynchronous=True)
        except KafkaException as error:
            _log.info("Kafka's offsets do not follow: %s", error)
