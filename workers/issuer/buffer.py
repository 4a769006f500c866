"""The records read from Kafka and not decided yet, in order."""

from collections.abc import Sequence
from itertools import pairwise

from confluent_kafka import Consumer, KafkaError, KafkaException

from service.domain.decide_plain import needs_attention
from service.domain.record import Record
from service.log import get_logger
from service.log_events import LogEvent
from service.stream import log_reader
from service.stream.codec import RecordReader
from service.stream.connection import explain
from workers.issuer.assignment import Assignment

_log = get_logger(__name__)
#: Plain records in a row that are worth a transaction of their own. Each costs about 4 µs of CPU time more in a batch
#: with one that needs attention; two transactions more cost about 7 ms.
_LONG_STRETCH = 2_000


class RecordBuffer:
    """Keeps records until they are decided or their partition is no longer active."""

    def __init__(self, consumer: Consumer, assignment: Assignment, reader: RecordReader, topic_id: str) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._reader = reader
        self._topic_id = topic_id
        self._records: list[Record] = []

    def __len__(self) -> int:
        return len(self._records)

    def fill(self, max_records: int, wait_seconds: float) -> None:
        """Poll once for the records that are missing up to `max_records`.

        Always asks for at least one record, so that the member stays in the group. Waits up to `wait_seconds` for the
        first record if the buffer is empty, and not at all for more: a lone record is not delayed. Raises
        KafkaException when the consumer has failed for good.
        """
        messages = log_reader.poll_batch(
            self._consumer, max(1, max_records - len(self._records)), 0 if self._records else wait_seconds
        )
        records = [
            self._reader.decode_plain(each) or self._reader.decode(log_reader.raw_record(each), self._topic_id)
            for each in messages
            if each.error() is None
        ]
        if len(records) < len(messages):
            for error, partition in ((each.error(), each.partition()) for each in messages):
                if error is None:
                    continue
                if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001  # its public name
                    reason = f"the database's offset is not in the log ({error.str()}): see `coupons log show`"
                    self._assignment.stop(partition or 0, reason)
                elif error.code() == KafkaError._FATAL:  # noqa: SLF001  # its public name
                    raise KafkaException(error)
                else:
                    _log.warning(LogEvent.CONSUMER_ERROR, reason=explain(error))
                    self._assignment.report_error(explain(error))
        self._records = self._records + records  # a rebalance during the poll may have shortened the buffer

    def push_front(self, records: Sequence[Record]) -> None:
        """Put records back before those that were read after them."""
        self._records = [*records, *self._records]

    def take(self, max_records: int) -> list[Record]:
        """Remove and return the next batch: up to `max_records` that are to be decided here."""
        self.drop_stale()
        size = next_batch_size(self._records[:max_records])
        batch, self._records = self._records[:size], self._records[size:]
        return batch

    def drop_stale(self) -> None:
        """Drop what is not to be decided here; must precede resuming a partition at another offset."""
        self._records = self._assignment.assigned_only(self._records)


def next_batch_size(records: Sequence[Record]) -> int:
    """Return how many of the records the next batch takes, so that one does not make thousands of others dear.

    A batch with a record that needs attention is written statement by statement. It ends before a long stretch of plain
    records, which is a batch of its own; a shorter one costs less within the batch than as another transaction.
    """
    special = [at for at, record in enumerate(records) if needs_attention(record)]
    if special and special[0] >= _LONG_STRETCH:
        return special[0]
    for at, following in pairwise((*special, len(records))):
        if following - at > _LONG_STRETCH:
            return at + 1
    return len(records)
