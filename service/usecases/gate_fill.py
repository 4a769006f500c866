"""Fills a cold gate with a coupon's seats: those in the database and the undecided ones at the end of the log."""

import time
from collections.abc import Iterator, Mapping

from sqlalchemy import Engine

from service import crash_points
from service.cancellation import Cancellation
from service.config import Settings
from service.crash_points import CrashPoint
from service.domain.request import Request
from service.gate.gate_admin import GateAdmin
from service.gate.keys import END_OF_TIME_MS
from service.log import get_logger
from service.log_events import LogEvent
from service.store import checkpoints, coupons, requests
from service.store.checkpoints import Checkpoint
from service.store.engine import in_transaction, repeatable_read
from service.store.logs import Log
from service.stream import log_reader
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.stream.topics import Topic

_log = get_logger(__name__)
_WAIT_SECONDS = 4.0
_POLL_SECONDS = 0.05
_RELEASE_BATCH_SIZE = 2_000


class GateFiller:
    """Fills the gate coupon by coupon, on demand."""

    def __init__(self, settings: Settings, engine: Engine, reader: RecordReader, gate_admin: GateAdmin) -> None:
        self._settings = settings
        self._engine = engine
        self._reader = reader
        self._gate_admin = gate_admin

    def fill(self, coupon_id: int) -> None:
        """Fill the gate for the coupon if it is cold, or wait while another process does. Raises Unavailable.

        A request that is being produced meanwhile may be missing, so one too many may be admitted; the issuer refuses
        it. After a wait of several seconds the gate may still be cold.
        """
        deadline = time.monotonic() + _WAIT_SECONDS
        while self._gate_admin.is_cold(coupon_id) and time.monotonic() < deadline:
            with self._gate_admin.fill_lock(coupon_id) as acquired:
                if acquired:
                    self._fill(coupon_id)
                    return
            time.sleep(_POLL_SECONDS)

    def _fill(self, coupon_id: int) -> None:
        """Read the coupon, its seats and the undecided records, then fill the gate with all of them at once.

        If the process is killed before the gate is filled, it stays cold, and the next fill starts when the lock has
        expired. If it is killed after that, seats released meanwhile stay taken until the gate is filled again.
        """
        begun = self._gate_admin.begin_fill(coupon_id)  # before anything is read: fill() compares it
        with repeatable_read(self._engine) as tx:  # seats and checkpoint of the same moment
            coupon = coupons.get(tx, coupon_id)
            seats = requests.live_seats(tx, coupon_id) if coupon else []
            log, current = checkpoints.of_open_log(tx)
        if coupon is None:
            self._gate_admin.mark_unknown(coupon_id)
            return
        undecided: dict[int, str] = {}
        for request in self._undecided(partition_of(coupon_id, self._settings.topic_partitions), log, current):
            if request.coupon_id == coupon_id:
                undecided.setdefault(request.user_id, request.request_id)  # the first request of a user has the seat
        crash_points.reach(CrashPoint.GATE_FILLING)
        filled = self._gate_admin.fill(coupon, (undecided | dict(seats)).items(), begun)
        crash_points.reach(CrashPoint.GATE_FILLED)
        # a seat that was released during the fill was released from a cold gate: release it again from the filled one
        with in_transaction(self._engine) as tx:
            released = [
                (coupon_id, user_id, request_id) for user_id, request_id in requests.released_seats(tx, coupon_id)
            ]
        for first in range(0, len(released), _RELEASE_BATCH_SIZE):
            self._gate_admin.release(released[first : first + _RELEASE_BATCH_SIZE], END_OF_TIME_MS)
        if filled:
            _log.info(LogEvent.GATE_FILLED, coupon_id=coupon_id, decided=len(seats), undecided=len(undecided))

    def find_undecided(self, coupons_of: Mapping[str, int], cancellation: Cancellation) -> set[str]:
        """Return which requests are in the log and not decided yet; each partition is read once.

        coupons_of: the coupon id of each request, by request id.

        Raises Unavailable, and Cancelled before the next record when `cancellation` is requested.
        """
        partitions = {partition_of(coupon_id, self._settings.topic_partitions) for coupon_id in coupons_of.values()}
        if not partitions:
            return set()
        with in_transaction(self._engine) as tx:
            log, current = checkpoints.of_open_log(tx)
        tails = (request for partition in partitions for request in self._undecided(partition, log, current))
        undecided = cancellation.watch(tails)
        return {one.request_id for one in undecided if coupons_of.get(one.request_id) == one.coupon_id}

    def _undecided(self, partition: int, log: Log, current: Mapping[int, Checkpoint]) -> Iterator[Request]:
        """Yield the accepted undecided requests of a partition in the order of the log, repeats included."""
        next_offset = current[partition].next_offset if partition in current else 0
        for raw in log_reader.read_records(self._settings, Topic.ISSUE_COUPON, partition, next_offset):
            request = self._reader.decode(raw, log.topic_id).request
            if request and request.accepted:
                yield request
