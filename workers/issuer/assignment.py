"""The partitions assigned to this issuer: the next offset of each, and which are paused until they have one."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from service.domain.record import Record
from service.log import get_logger
from service.log_events import LogEvent
from service.stream.topics import Topic
from workers.issuer.health import JOINING, Health

_log = get_logger(__name__)


class Assignment:
    """Partitions are assigned paused. resume_at() seeks and resumes them."""

    def __init__(self, consumer: Consumer, health: Health, join_batch: Callable[[], None]) -> None:
        """`join_batch` finishes the batch in progress; it is called before a partition is revoked."""
        self._consumer = consumer
        self._health = health
        self._join_batch = join_batch
        #: next offset to decide, by active partition
        self.next_offsets: dict[int, int] = {}
        #: assigned partitions that are paused until they have an offset
        self.waiting: set[int] = set()
        #: offset that was not in the log, by partition that stopped there; it goes on from any other offset
        self.stopped_at: dict[int, int] = {}
        #: every partition that was ever assigned
        self._ever_assigned: set[int] = set()

    def subscribe(self) -> None:
        """Join the consumer group."""
        self._consumer.subscribe(
            [Topic.ISSUE_COUPON], on_assign=self.on_assign, on_revoke=self.on_revoke, on_lost=self.on_lost
        )

    def assigned_only(self, records: Iterable[Record]) -> list[Record]:
        """Return the records that are still to be decided here; others were read before a pause or a rebalance."""
        active = self.next_offsets
        return [
            record
            for record in records
            if (next_offset := active.get(record.partition)) is not None and record.offset >= next_offset
        ]

    def advance(self, next_offsets: Mapping[int, int]) -> None:
        """Take over the committed offsets; a partition that was paused in the meantime stays paused."""
        self.next_offsets |= {at: offset for at, offset in next_offsets.items() if at in self.next_offsets}

    def pause(self, partitions: Iterable[int], why: str) -> None:
        """Pause partitions until they are resumed; records read from them are dropped."""
        flowing = [partition for partition in partitions if partition in self.next_offsets]
        self._consumer.pause([TopicPartition(Topic.ISSUE_COUPON, partition) for partition in flowing])
        for partition in flowing:
            del self.next_offsets[partition]
            self.waiting.add(partition)
            self._health.set_unready(f"partition {partition}", why)

    def stop(self, partition: int, why: str) -> None:
        """Stop a partition until its offset in the database is another one: this one is not in the log."""
        if partition in self.next_offsets:
            _log.error(LogEvent.PARTITION_STOPPED, partition=partition, reason=why)
            self.stopped_at[partition] = self.next_offsets[partition]
        self.pause([partition], why)
        self._health.set_unready(f"partition {partition}", why)

    def resume_at(self, offsets: dict[int, int]) -> None:
        """Seek waiting partitions to these offsets and resume them; a partition whose seek fails stays paused."""
        for partition in self.waiting & offsets.keys():
            if self.stopped_at.get(partition) == offsets[partition]:
                continue
            at = TopicPartition(Topic.ISSUE_COUPON, partition, offsets[partition])
            try:
                if partition in self.stopped_at:  # the client has ended its fetches: a seek would fail
                    self._consumer.incremental_unassign([at])
                    self._consumer.incremental_assign([at])
                else:
                    self._consumer.seek(at)
                self._consumer.resume([at])
            except KafkaException as error:
                _log.debug(LogEvent.PARTITION_SEEK_FAILED, partition=partition, reason=str(error))
                continue
            self.waiting.discard(partition)
            self.stopped_at.pop(partition, None)
            self.next_offsets[partition] = offsets[partition]
            self._health.set_ready(f"partition {partition}")

    def report_error(self, reason: str) -> None:
        """Report an error of the consumer while it is not in its group: it may be the reason."""
        if "issuer" in self._health.reasons:
            self._health.set_starting(f"{JOINING}: {reason}")

    def clear_health(self) -> None:
        """Remove all partitions from the health report, because a failed consumer triggers no revoke callback."""
        for partition in self._ever_assigned:
            self._health.set_ready(f"partition {partition}")

    def on_assign(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Take partitions over, paused; called by the consumer during a poll."""
        _log.info(LogEvent.PARTITIONS_ASSIGNED, partitions=sorted(at.partition for at in partitions))
        self._health.set_ready("issuer")
        from_beginning = [TopicPartition(at.topic, at.partition, OFFSET_BEGINNING) for at in partitions]
        consumer.incremental_assign(from_beginning)
        consumer.pause(from_beginning)
        for at in partitions:
            self._ever_assigned.add(at.partition)
            self.waiting.add(at.partition)
            self._health.set_unready(
                f"partition {at.partition}", "paused until its checkpoint has been read from the database"
            )

    def on_revoke(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Release revoked partitions; called by the consumer during a poll.

        The batch in progress ends first, so that the next owner starts after it. Records read ahead are dropped.
        """
        self._join_batch()
        _log.info(LogEvent.PARTITIONS_REVOKED, partitions=sorted(at.partition for at in partitions))
        for at in partitions:
            self.next_offsets.pop(at.partition, None)
            self.waiting.discard(at.partition)
            self.stopped_at.pop(at.partition, None)
            self._health.set_ready(f"partition {at.partition}")
        if not self.next_offsets and not self.waiting:
            self._health.set_ready("kafka")  # the watermark queries no leader any more

    def on_lost(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Drop partitions that are lost because the session timed out; ready again when some are assigned."""
        self.on_revoke(consumer, partitions)
        self._health.set_unready(
            "issuer", "the broker received no heartbeat from this issuer within the session timeout; it is rejoining"
        )
