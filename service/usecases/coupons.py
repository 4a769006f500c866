"""Creates, reads and changes coupons, and refills the gate for them."""

import json
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine

from service import crash_points
from service.config import Settings
from service.crash_points import CrashPoint
from service.domain.coupon import Coupon, CouponChange, CouponFilter, apply_change
from service.domain.error_code import ErrorCode
from service.domain.errors import Conflict, CreationUnconfirmed, NotFound, Unavailable
from service.domain.request import LogPosition
from service.gate.gate_admin import GateAdmin
from service.store import checkpoints, coupons, idempotency_keys
from service.store.engine import in_transaction
from service.store.idempotency_keys import EarlierRequest
from service.stream.partitioner import partition_of
from service.usecases import follow_up
from service.usecases.gate_fill import GateFiller
from service.usecases.gate_sync import sync_coupon_changes
from service.usecases.recover import Recoverer

_PAGE_SIZE = 500


class _Values(NamedTuple):
    """What a coupon is created with."""

    name: str
    quantity: int
    waitlist: int
    opens_at_ms: int | None
    closes_at_ms: int | None


class CouponService:
    """Operations on coupons; all of them raise Unavailable when the database does not answer."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        gate_admin: GateAdmin,
        gate_filler: GateFiller,
        recoverer: Recoverer,
        acted_by: str,
    ) -> None:
        """`acted_by` is recorded with every change."""
        self._settings = settings
        self._engine = engine
        self._gate_admin = gate_admin
        self._gate_filler = gate_filler
        self._recoverer = recoverer
        self.acted_by = acted_by

    def acting_as(self, name: str) -> "CouponService":
        """Return the same operations for another caller, whose name is recorded with every change."""
        other = copy(self)
        other.acted_by = name
        return other

    def create(
        self,
        name: str,
        quantity: int,
        waitlist: int,
        opens_at_ms: int | None,
        closes_at_ms: int | None,
        idempotency_key: str | None = None,
    ) -> Coupon:
        """Store a new coupon and load it into the gate; times are milliseconds since 1970 UTC, None: no bound.

        idempotency_key: the caller's repeats with this key return the coupon that the first one created, as it is now.
        A key is known for IDEMPOTENCY_KEY_DAYS at least.

        If Redis is away or the process is killed in between, the first request for the coupon fills the gate. Raises
        Conflict if the key was used with other values, Unavailable if a repeat creates no second coupon, and
        CreationUnconfirmed if it may: the answer to the COMMIT was lost, and there is no key.
        """
        values = _Values(name, quantity, waitlist, opens_at_ms, closes_at_ms)
        is_committing = False
        try:
            with in_transaction(self._engine) as tx:
                if idempotency_key is None:
                    coupon = coupons.create(tx, *values, self.acted_by)
                else:
                    coupon = self._create_once(tx, values, idempotency_key)
                is_committing = True
        except Unavailable as error:
            if is_committing and idempotency_key is None:
                raise CreationUnconfirmed(error.part, str(error)) from error
            raise
        with suppress(Unavailable):
            self._gate_filler.fill(coupon.id)
        return coupon

    def _create_once(self, tx: Connection, values: _Values, key: str) -> Coupon:
        """Return the coupon that this caller created with the key, now or earlier."""
        earlier = idempotency_keys.lock_and_find(tx, self.acted_by, key)
        fingerprint = sha256(json.dumps(_not_default(values)).encode()).digest()
        if earlier is None:
            coupon = coupons.create(tx, *values, self.acted_by)
            idempotency_keys.insert(tx, self.acted_by, key, EarlierRequest(fingerprint, coupon.id))
            return coupon
        if earlier.fingerprint != fingerprint:
            raise Conflict(
                ErrorCode.IDEMPOTENCY_KEY_REUSED,
                f"Coupon {earlier.coupon_id} was created with this Idempotency-Key and other values. Send each request"
                " with a key of its own.",
            )
        return coupons.get_many(tx, [earlier.coupon_id])[earlier.coupon_id]

    def get(self, coupon_id: int) -> Coupon:
        """Return the coupon with its current counters; raise NotFound."""
        with in_transaction(self._engine) as tx:
            coupon = coupons.get(tx, coupon_id)
        if coupon is None:
            raise unknown_coupon(coupon_id)
        return coupon

    def list_page(self, filters: CouponFilter, after_id: int, limit: int) -> list[Coupon]:
        """Return up to `limit` coupons that match, with ids above `after_id`, in id order."""
        with in_transaction(self._engine) as tx:
            return coupons.page(tx, filters, after_id, limit)

    def iterate_ids(self) -> Iterator[int]:
        """Yield the id of every coupon in id order, page by page, each page in a transaction of its own."""
        after_id = 0
        while found := self.list_page(CouponFilter(), after_id, _PAGE_SIZE):
            yield from (coupon.id for coupon in found)
            after_id = found[-1].id

    def change(self, coupon_id: int, values: dict[str, Any], if_versions: frozenset[int] | None = None) -> Coupon:
        """Store new values (fields of Coupon) and return the coupon as it is afterwards.

        if_versions: versions of which the coupon must have one, so that nobody's change is overwritten unseen; None:
        any. A coupon that has the values already may have any version: a repeat of a change whose answer was lost
        succeeds (RFC 9110, section 13.1.1).

        A new quantity and a close apply to all undecided requests. A new window and a pause apply to new requests and
        undecided foreign records. Seats that a higher quantity adds go to requests on standby first. Raises NotFound,
        and Conflict when the values contradict the coupon's state, or when it has another version.
        A process that is killed after the commit leaves the standby requests and the gate to the sweep.
        """
        with in_transaction(self._engine) as tx:
            coupon = coupons.lock(tx, [coupon_id]).get(coupon_id)
            if coupon is None:
                raise unknown_coupon(coupon_id)
            changed = apply_change(coupon, values)
            if changed != coupon and if_versions is not None and coupon.version not in if_versions:
                raise Conflict(
                    ErrorCode.PRECONDITION_FAILED,
                    f"The coupon has version {coupon.version} by now. Read it, then repeat the request with its ETag in"
                    " If-Match.",
                )
            if changed != coupon:
                # While the coupon is locked no issuer decides it, so the change applies from the checkpoint.
                partition = partition_of(coupon_id, self._settings.topic_partitions)
                log, current = checkpoints.of_open_log(tx)
                checkpoint = current.get(partition)
                effective_from = LogPosition(partition, checkpoint.next_offset if checkpoint else 0)
                coupons.update(tx, CouponChange(changed, log.id, effective_from, self.acted_by))
            crash_points.reach(CrashPoint.CHANGE_WRITTEN)
        crash_points.reach(CrashPoint.CHANGE_COMMITTED)
        with suppress(Unavailable):  # the change is committed; the sweep does what is left
            follow_up.publish(self._gate_admin, self._recoverer.decide_standby(coupon_id))
            crash_points.reach(CrashPoint.CHANGE_STANDBY_DECIDED)
            sync_coupon_changes(self._engine, self._gate_admin)
        with in_transaction(self._engine) as tx:
            return coupons.get_many(tx, [coupon_id])[coupon_id]

    def repair_shared_keys(self) -> None:
        """Delete what this service did not write from the gate's keys that all coupons share.

        The partitions' progress is published again from the database's checkpoints. Raises Unavailable.
        """
        self._gate_admin.delete_wrong_types()
        self._gate_admin.forget_progress()
        with in_transaction(self._engine) as tx:
            _, current = checkpoints.of_open_log(tx)
        self._gate_admin.publish_progress({at: checkpoint.next_offset for at, checkpoint in current.items()})

    def refill_gate(self, coupon_id: int) -> None:
        """Empty the gate of one coupon and fill it from the database and the log.

        Raises Unavailable, also when another process holds the fill lock for too long.
        """
        self._gate_admin.evict(coupon_id)
        self._gate_filler.fill(coupon_id)
        if self._gate_admin.is_cold(coupon_id):
            raise Unavailable("The gate", f"another process is still filling coupon {coupon_id}; try again")


def _not_default(values: _Values) -> dict[str, Any]:
    """Return the values by name without those that a creation need not name.

    So the fingerprint of a request stays the same when a later version takes more values.
    """
    return {name: value for name, value in values._asdict().items() if value not in {0, None}}


def unknown_coupon(coupon_id: int) -> NotFound:
    """Return the error for an id that no coupon has."""
    return NotFound(ErrorCode.UNKNOWN_COUPON, f"There is no coupon {coupon_id}.")
