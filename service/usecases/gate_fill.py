"""Fills a cold gate: a coupon's seats from the database and from the log's tail that nobody has decided yet."""

import logging
import time
from collections.abc import Iterator

from sqlalchemy import Engine, text

from service import crash_points
from service.config import Settings
from service.crash_points import CrashPoint
from service.gate.gate_admin import GateAdmin
from service.gate.keys import ANY_TIME_MS
from service.store import checkpoints, coupons, requests
from service.store.engine import in_transaction
from service.stream import log_reader
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.stream.topics import Topic

_log = logging.getLogger(__name__)
_WAIT_SECONDS = 4.0
_RELEASED_AT_ONCE = 2_000


class GateFiller:
    """Fills the gate coupon by coupon, on demand."""

    def __init__(
        self, settings: Settings, engine: Engine, log_id: int, reader: RecordReader, gate_admin: GateAdmin
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._log_id = log_id
        self._reader = reader
        self._gate_admin = gate_admin

    def fill(self, coupon_id: int) -> None:
        """Makes the gate know the coupon; waits while another process is at it. Raises Unavailable.

        A request on its way to the log meanwhile may be missed, which admits one too many; the issuer refuses it.
        """
        deadline = time.monotonic() + _WAIT_SECONDS
        while self._gate_admin.is_cold(coupon_id) and time.monotonic() < deadline:
            with self._gate_admin.fill_lock(coupon_id) as mine:
                if mine:
                    self._fill(coupon_id)
                    return
            time.sleep(0.05)

    def _fill(self, coupon_id: int) -> None:
        with in_transaction(self._engine) as tx:
            tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))  # seats and offset of one moment
            coupon = coupons.get(tx, coupon_id)
            seats = requests.live_seats(tx, coupon_id) if coupon else []
            positions = checkpoints.current_checkpoints(tx, self._log_id)
        if coupon is None:
            self._gate_admin.mark_unknown(coupon_id)
            return
        position = positions.get(partition_of(coupon_id, self._settings.topic_partitions))
        tail = dict(self._tail(coupon_id, position.next_offset if position else 0))
        crash_points.reach(CrashPoint.GATE_FILLING)
        self._gate_admin.fill(coupon, (tail | dict(seats)).items())
        crash_points.reach(CrashPoint.GATE_FILLED)
        self._release_freed(coupon_id)
        _log.info("gate filled", extra={"coupon_id": coupon_id, "decided": len(seats), "undecided": len(tail)})

    def _release_freed(self, coupon_id: int) -> None:
        """Seats that came back while the gate was being filled came back to a cold gate: once more, as it is open."""
        with in_transaction(self._engine) as tx:
            freed = [(coupon_id, user_id, request_id) for user_id, request_id in requests.released_seats(tx, coupon_id)]
        for first in range(0, len(freed), _RELEASED_AT_ONCE):
            self._gate_admin.release(freed[first : first + _RELEASED_AT_ONCE], ANY_TIME_MS)

    def is_undecided(self, coupon_id: int, request_id: str) -> bool:
        """Whether the request lies in the log beyond what has been decided. Raises Unavailable."""
        with in_transaction(self._engine) as tx:
            position = checkpoints.current_checkpoints(tx, self._log_id).get(
                partition_of(coupon_id, self._settings.topic_partitions)
            )
        return any(found == request_id for _, found in self._tail(coupon_id, position.next_offset if position else 0))

    def _tail(self, coupon_id: int, next_offset: int) -> Iterator[tuple[int, str]]:
        """User and request id of the accepted requests that are in the log and not decided; the first one counts."""
        partition = partition_of(coupon_id, self._settings.topic_partitions)
        seen: set[int] = set()
        for raw in log_reader.read_records(self._settings, Topic.ISSUE_COUPON, partition, next_offset):
            request = self._reader.decode(raw).request
            if request and request.accepted and request.coupon_id == coupon_id and request.user_id not in seen:
                seen.add(request.user_id)
                yield request.user_id, request.request_id
