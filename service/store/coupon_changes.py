"""Queries on the record of what operators changed; a change the gate has not heard of is work for Celery."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, text

from service.domain.change import CouponChange
from service.domain.coupon import Coupon
from service.store.engine import to_datetime


def insert_initial(tx: Connection, coupon: Coupon) -> None:
    """Records the values that a new coupon begins with; the gate learns of them by its first filling."""
    tx.execute(_INSERT, _version(coupon) | {"log": None, "partition": None, "first": None, "told": True})


def insert(tx: Connection, change: CouponChange) -> None:
    """Records a change."""
    place = {"log": change.log_id, "partition": change.effective_from.partition, "first": change.effective_from.offset}
    tx.execute(_INSERT, _version(change.coupon) | place | {"told": False})


_INSERT = text(
    "INSERT INTO coupon_changes (coupon_id, version, log_id, partition, first_offset, quantity, waitlist, opens_at,"
    " closes_at, override, published_at) VALUES (:coupon_id, :version, :log, :partition, :first, :quantity, :waitlist,"
    " :opens_at, :closes_at, :override, CASE WHEN :told THEN now() END)"
)


def change_columns(coupon: Coupon) -> dict[str, Any]:
    """What an operator decides about a coupon, as columns."""
    return {
        "quantity": coupon.quantity,
        "waitlist": coupon.waitlist,
        "opens_at": None if coupon.opens_at_ms is None else to_datetime(coupon.opens_at_ms),
        "closes_at": None if coupon.closes_at_ms is None else to_datetime(coupon.closes_at_ms),
        "override": coupon.override.value,
    }


def _version(coupon: Coupon) -> dict[str, object]:
    return {"coupon_id": coupon.id, "version": coupon.version, **change_columns(coupon)}


def unpublished_coupon_ids(tx: Connection, limit: int) -> list[int]:
    """Ids of coupons with a change that the gate has not heard of."""
    query = "SELECT DISTINCT coupon_id FROM coupon_changes WHERE published_at IS NULL ORDER BY coupon_id LIMIT :limit"
    return list(tx.execute(text(query), {"limit": limit}).scalars())


def mark_published(tx: Connection, coupons: Iterable[Coupon]) -> None:
    """Notes that the gate knows these versions, and so all before them."""
    known = [{"id": coupon.id, "version": coupon.version} for coupon in coupons]
    if known:
        tx.execute(
            text(
                "UPDATE coupon_changes SET published_at = now()"
                " WHERE published_at IS NULL AND coupon_id = :id AND version <= :version"
            ),
            known,
        )


def has_overdue(tx: Connection, grace_seconds: float) -> bool:
    """Whether a change waits for so long, that the gate must have been away."""
    query = (
        "SELECT EXISTS (SELECT FROM coupon_changes WHERE published_at IS NULL"
        " AND changed_at < now() - make_interval(secs => :grace))"
    )
    return bool(tx.execute(text(query), {"grace": grace_seconds}).scalar_one())
