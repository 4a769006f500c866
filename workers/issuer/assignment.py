"""Which partitions this issuer has, where it stands in each, and which wait to be placed at the database's offset."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from service.domain.record import Record
from service.domain.request import LogPosition
from service.stream.topics import Topic
from workers.issuer.health import Health

_log = logging.getLogger(__name__)


class Assignment:
    """Partitions are assigned paused; only `place`, with an offset from the database, lets them flow."""

    def __init__(self, consumer: Consumer, health: Health, join_batch: Callable[[], None]) -> None:
        """`settle` ends what is under way; it is called before a partition is given up."""
        self._consumer = consumer
        self._health = health
        self._settle = join_batch
        #: next offset to decide, by partition that flows
        self.next_offsets: dict[int, int] = {}
        #: partitions that are ours and paused until they are placed
        self.waiting: set[int] = set()
        #: all that ever were ours
        self._known: set[int] = set()

    def subscribe(self) -> None:
        """Joins the group."""
        self._consumer.subscribe(
            [Topic.ISSUE_COUPON], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def assigned_only(self, records: Iterable[Record]) -> list[Record]:
        """Those of the records that are still ours to decide: the others were read before a pause or a rebalance."""
        return [record for record in records if self._flows(record.raw.log_position)]

    def _flows(self, log_position: LogPosition) -> bool:
        position = self.next_offsets.get(log_position.partition)
        return position is not None and log_position.offset >= position

    def advance(self, positions: Mapping[int, int]) -> None:
        """Takes over how far partitions are decided; one that was stopped meanwhile stays so."""
        self.next_offsets |= {at: offset for at, offset in positions.items() if at in self.next_offsets}

    def pause(self, partitions: Iterable[int], why: str) -> None:
        """Drops what was read of partitions; they wait to be placed anew."""
        ours = [partition for partition in partitions if partition in self.next_offsets]
        self._consumer.pause(_named(ours))
        for partition in ours:
            del self.next_offsets[partition]
            self.waiting.add(partition)
            self._health.set_unready(f"partition {partition}", why)

    def stop(self, partition: int, why: str) -> None:
        """Stops one partition for good: its offset in the database is not in the log."""
        _log.error("partition %s is stopped: %s", partition, why)
        self.pause([partition], why)
        self.waiting.discard(partition)
        self._health.set_unready(f"partition {partition}", why)

    def resume_at(self, offsets: dict[int, int]) -> None:
        """Lets waiting partitions flow from these offsets; one that cannot seek yet waits on."""
        for partition in self.waiting & offsets.keys():
            at = TopicPartition(Topic.ISSUE_COUPON, partition, offsets[partition])
            try:
                self._consumer.seek(at)
                self._consumer.resume([at])
            except KafkaException as error:
                _log.debug("partition %s cannot be placed yet: %s", partition, error)
                continue
            self.waiting.discard(partition)
            self.next_offsets[partition] = offsets[partition]
            self._health.set_ready(f"partition {partition}")

    def clear_health(self) -> None:
        """Says nothing of any partition any more: a consumer that failed for good gives them up without a word."""
        for partition in self._known:
            self._health.set_ready(f"partition {partition}")

    def _on_assign(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        _log.info("assigned: %s", sorted(at.partition for at in partitions))
        self._health.set_ready("issuer")
        named = [TopicPartition(at.topic, at.partition, OFFSET_BEGINNING) for at in partitions]
        consumer.incremental_assign(named)
        consumer.pause(named)
        for at in partitions:
            self._known.add(at.partition)
            self.waiting.add(at.partition)
            self._health.set_unready(f"partition {at.partition}", "it waits for its offset from the database")

    def _on_revoke(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """What is under way ends first, so that a successor is placed behind it; what was read ahead is dropped."""
        self._settle()
        _log.info("revoked: %s", sorted(at.partition for at in partitions))
        for at in partitions:
            self.next_offsets.pop(at.partition, None)
            self.waiting.discard(at.partition)
            self._health.set_ready(f"partition {at.partition}")
        if not self.next_offsets and not self.waiting:
            self._health.set_ready("kafka")  # nothing of it is asked any more

    def _on_lost(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Nobody took them from us: the group has not heard from us in time. It is well again once it assigns some."""
        self._on_revoke(consumer, partitions)
        self._health.set_unready("issuer", "its group has not heard from it within the session's time")


def _named(partitions: Iterable[int]) -> list[TopicPartition]:
    return [TopicPartition(Topic.ISSUE_COUPON, partition) for partition in partitions]
