"""What operators do when records are gone: adopt a topic that was created again, skip records that were deleted."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from service import crash_points
from service.clock import now_ms
from service.config import Settings
from service.crash_points import CrashPoint
from service.domain.error_code import ErrorCode
from service.domain.errors import Conflict, Misconfigured
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.gate.gate_admin import GateAdmin
from service.log import get_logger
from service.log_events import LogEvent
from service.store import checkpoints, engine, logs, lost_ranges, outbox, requests
from service.store.logs import AdoptedLog, Log
from service.store.lost_ranges import LostRange, LostRequest
from service.store.outbox import OutboxKind
from service.stream import log_reader, topics
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.stream.topics import Topic
from service.usecases import follow_up
from service.usecases.follow_up import FollowUp

_log = get_logger(__name__)
_ROWS_BATCH_SIZE = 500


class LogStatus(NamedTuple):
    """The topic, the logs of the database, and the records that are gone."""

    #: Kafka's id of the present topic; None if it does not exist
    topic_id: str | None
    logs: list[AdoptedLog]
    #: next offset, first offset and end offset by partition of the open log
    partitions: dict[int, tuple[int, int, int]]
    lost: list[LostRange]


class Recovered(NamedTuple):
    """What an action has recorded."""

    lost: list[LostRange]
    #: requests that the gate named; they are dead with the code `lost`
    requests: int


class LogRecovery:
    """The actions of `coupons log`; each raises Unavailable before it has changed anything."""

    def __init__(
        self,
        settings: Settings,
        store: Engine,
        ids: RequestIds,
        reader: RecordReader,
        gate_admin: GateAdmin,
    ) -> None:
        self._settings = settings
        self._store = store
        self._ids = ids
        self._reader = reader
        self._gate_admin = gate_admin

    def status(self) -> LogStatus:
        """Compare topic and database."""
        topic = topics.find(topics.build_admin(self._settings), Topic.ISSUE_COUPON)
        with engine.in_transaction(self._store) as tx:
            log, current = checkpoints.of_open_log(tx)
            history, lost = logs.history(tx), lost_ranges.of_log(tx)
        partitions = {}
        if topic and topic.id == log.topic_id:
            for partition in range(self._settings.topic_partitions):
                first, end = log_reader.present_range(self._settings, Topic.ISSUE_COUPON, partition)
                checkpoint = current.get(partition)
                partitions[partition] = (checkpoint.next_offset if checkpoint else first, first, end)
        return LogStatus(topic.id if topic else None, history, partitions, lost)

    def adopt(self, adopted_by: str) -> Recovered | None:
        """Close the open log and open the present topic instead; return None if it is the open log already.

        Every undecided record of the closed log is recorded as lost, and the gate is emptied. Raises Misconfigured for
        a topic that is too small. If the process is killed after the commit, the gate keeps its seats until the
        command is run again.
        """
        topic = topics.describe(topics.build_admin(self._settings), Topic.ISSUE_COUPON)
        if faults := topics.too_few(Topic.ISSUE_COUPON, topic, self._settings):
            raise Misconfigured(faults)
        with engine.in_transaction(self._store) as tx:
            before, _ = checkpoints.of_open_log(tx)
        recovered = None
        if before.topic_id != topic.id:
            partitions = self._settings.topic_partitions
            named = self._find_lost_requests(Log(before.id, topic.id), dict.fromkeys(range(partitions), 0))
            with engine.in_transaction(self._store) as tx:
                changed = logs.adopt(tx, Topic.ISSUE_COUPON, topic.id, partitions, adopted_by)
                if changed:  # otherwise another process was faster
                    closed, opened = changed
                    reason = f"the topic was created again and adopted as log {opened.id}"
                    lost = [
                        LostRange(closed.id, partition, checkpoint.next_offset, None, reason, adopted_by)
                        for partition, checkpoint in sorted(checkpoints.current_checkpoints(tx, closed.id).items())
                    ]
                    recovered = self._record(tx, lost, named)
            _log.warning(LogEvent.LOG_ADOPTED, topic_id=topic.id, earlier_topic_id=before.topic_id)
            crash_points.reach(CrashPoint.LOG_ADOPTED)
        self._gate_admin.evict_all()
        follow_up.publish(self._gate_admin, FollowUp(outbox_kinds=self._outbox_kinds()))
        return recovered

    def skip(self, partition: int, skipped_by: str, reason: str) -> Recovered:
        """Record the deleted records before the first offset of a partition as lost, and go on after them.

        Requests among them that the gate names become dead with the code `lost`; their users get a notice and may
        request again. Raises Conflict if the partition lacks no undecided record. Everything is one transaction.
        """
        with engine.in_transaction(self._store) as tx:
            log, current = checkpoints.of_open_log(tx)
        first = log_reader.first_offset(self._settings, Topic.ISSUE_COUPON, partition)
        checkpoint = current.get(partition)
        if checkpoint is None or checkpoint.next_offset >= first:
            raise Conflict(ErrorCode.NOTHING_LOST, f"Partition {partition} has lost no undecided record.")
        named = self._find_lost_requests(log, {partition: first})
        with engine.in_transaction(self._store) as tx:
            next_offset = lost_ranges.lock_checkpoint(tx, log.id, partition)
            if next_offset != checkpoint.next_offset:
                raise Conflict(ErrorCode.CHANGED, f"Partition {partition} was advanced meanwhile.")
            lost = LostRange(log.id, partition, next_offset, first, reason, skipped_by)
            recovered = self._record(tx, [lost], named)
            lost_ranges.advance_past(tx, log.id, partition, first)
        follow_up.publish(self._gate_admin, FollowUp(outbox_kinds=self._outbox_kinds()))
        return recovered

    def lagging_partitions(self) -> list[int]:
        """Return the partitions whose first offset is beyond their checkpoint."""
        return [
            partition for partition, (next_offset, first, _) in self.status().partitions.items() if next_offset < first
        ]

    def _record(self, tx: Connection, lost: Iterable[LostRange], named: Mapping[int, list[LostRequest]]) -> Recovered:
        """Write the ranges, and a dead request with its outbox entries for each request that the gate named."""
        decided_at = engine.database_now(tx)
        lost = list(lost)
        lost_ranges.insert(tx, lost)
        written = 0
        for one in lost:
            placed = list(_place(named.get(one.partition, []), one))
            for start in range(0, len(placed), _ROWS_BATCH_SIZE):
                rows = placed[start : start + _ROWS_BATCH_SIZE]
                lost_ranges.insert_dead(tx, one.log_id, one.partition, rows, decided_at)
                ranges = outbox.ranges_of(row.log_position for row in rows)
                outbox.insert(tx, one.log_id, self._outbox_kinds(), ranges, decided_at)
            written += len(placed)
            _log.warning(LogEvent.RECORDS_LOST, **one._asdict(), requests=len(placed))
        return Recovered(lost, written)

    def _outbox_kinds(self) -> set[OutboxKind]:
        return {OutboxKind.GATE, OutboxKind.NOTIFY} if self._settings.webhook_url else {OutboxKind.GATE}

    def _find_lost_requests(self, log: Log, first_offsets: Mapping[int, int]) -> dict[int, list[LostRequest]]:
        """Return the requests with a seat at the gate that have no row and no record in the log, by partition.

        A request whose append was attempted within the produce timeout may be on its way to the log: it is left out.
        `log` has the topic id of the records that are there; `first_offsets` is where they begin.
        """
        present = {
            request.request_id
            for partition, first in first_offsets.items()
            for raw in log_reader.read_records(self._settings, Topic.ISSUE_COUPON, partition, first)
            if (request := self._reader.decode(raw, log.topic_id).request)
        }
        oldest_ms = now_ms() - self._settings.produce_timeout_ms
        found: dict[int, list[LostRequest]] = {}
        for coupon_id in self._gate_admin.coupon_ids():
            partition = partition_of(coupon_id, self._settings.topic_partitions)
            if partition not in first_offsets:
                continue
            for seats in self._gate_admin.iterate_seats(coupon_id):
                with engine.in_transaction(self._store) as tx:
                    prior = requests.prior_requests(tx, {(coupon_id, seat.user_id) for seat in seats})
                for seat in seats:
                    user = prior.get((coupon_id, seat.user_id))
                    claims = self._ids.decode(seat.request_id)
                    if claims is None or seat.request_id in present or (user and seat.request_id in user.request_ids):
                        continue
                    if seat.attempted_at_ms is None or seat.attempted_at_ms < oldest_ms:
                        position = LogPosition(partition, -1 if seat.offset is None else seat.offset)
                        found.setdefault(partition, []).append(
                            LostRequest(position, coupon_id, seat.user_id, seat.request_id, claims.minted_at_ms)
                        )
        return found


def _place(named: Iterable[LostRequest], lost: LostRange) -> Iterator[LostRequest]:
    """Give each request an offset of its own in the lost range: its own if the gate has it, else a free one.

    The range has at least as many offsets as requests that were in it; a request beyond that was never in the log.
    """
    end = 2**63 - 1 if lost.end_offset is None else lost.end_offset
    requests_in_order = sorted(named, key=lambda one: (one.minted_at_ms, one.request_id))
    own = {
        one.log_position.offset: one for one in requests_in_order if lost.first_offset <= one.log_position.offset < end
    }
    yield from own.values()
    placed = {one.request_id for one in own.values()}
    free = (offset for offset in count(lost.first_offset) if offset not in own)
    for one in requests_in_order:
        if one.request_id not in placed and (offset := next(free)) < end:
            yield one._replace(log_position=LogPosition(lost.partition, offset))
