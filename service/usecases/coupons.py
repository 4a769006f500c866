"""Changes of a coupon: written under its lock, with the place in the log from which they count."""

from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Engine

from service import crash_points
from service.config import Settings
from service.crash_points import CrashPoint
from service.domain.change import CouponChange, apply_change
from service.domain.coupon import Coupon
from service.domain.errors import Unavailable
from service.domain.refusal import Refused
from service.domain.request import LogPosition, ReasonCode
from service.gate.gate_admin import GateAdmin
from service.store import checkpoints, coupons
from service.store.engine import in_transaction
from service.stream.partitioner import partition_of
from service.usecases.gate_sync import sync_coupon_changes
from service.usecases.recover import Recoverer


class CouponService:
    """Changes coupons."""

    def __init__(
        self, settings: Settings, engine: Engine, log_id: int, gate_admin: GateAdmin, recoverer: Recoverer
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._log_id = log_id
        self._gate_admin = gate_admin
        self._recoverer = recoverer

    def change(self, coupon_id: int, values: dict[str, Any]) -> Coupon:
        """Stores new values (fields of Coupon) and returns the coupon as it is then.

        Raises Refused when there is no such coupon, Conflict when the values do not fit, Unavailable. What the issuer
        has not decided yet is decided by the new values; seats that a raise frees go to those on standby first.
        """
        with in_transaction(self._engine) as tx:
            coupon = coupons.lock(tx, [coupon_id]).get(coupon_id)
            if coupon is None:
                raise Refused(ReasonCode.UNKNOWN_COUPON)
            new = apply_change(coupon, values)
            if new != coupon:
                self._store(tx, new)
            crash_points.reach(CrashPoint.CHANGE_WRITTEN)
        crash_points.reach(CrashPoint.CHANGE_COMMITTED)
        with suppress(Unavailable):  # the change stands; the sweep does what is left
            self._recoverer.decide_standby(coupon_id)
            crash_points.reach(CrashPoint.CHANGE_STANDBY_DECIDED)
            sync_coupon_changes(self._engine, self._gate_admin)
        with in_transaction(self._engine) as tx:
            return coupons.get_many(tx, [coupon_id])[coupon_id]

    def _store(self, tx: Connection, coupon: Coupon) -> None:
        """Under the lock no issuer is deciding about the coupon: the stored offset is where the new values begin."""
        partition = partition_of(coupon.id, self._settings.topic_partitions)
        position = checkpoints.current_checkpoints(tx, self._log_id).get(partition)
        since = LogPosition(partition, position.next_offset if position else 0)
        coupons.update(tx, CouponChange(coupon, self._log_id, since))
