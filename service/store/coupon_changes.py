"""Queries on coupon_changes: what operators changed. A change that the gate does not have yet is work for Celery."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, text

from service.domain.coupon import Coupon, CouponChange
from service.timestamps import to_optional_datetime


def insert_initial(tx: Connection, coupon: Coupon, created_by: str) -> None:
    """Record the initial values of a new coupon; the gate loads them when it is filled for the first time."""
    tx.execute(
        _INSERT, _version(coupon, created_by) | {"log": None, "partition": None, "first": None, "published": True}
    )


def insert(tx: Connection, change: CouponChange) -> None:
    """Record a change."""
    effective_from = {
        "log": change.log_id,
        "partition": change.effective_from.partition,
        "first": change.effective_from.offset,
    }
    tx.execute(_INSERT, _version(change.coupon, change.changed_by) | effective_from | {"published": False})


_INSERT = text(
    "INSERT INTO coupon_changes (coupon_id, version, log_id, partition, first_offset, name, quantity, waitlist,"
    " opens_at, closes_at, override, archived_at, changed_by, published_at) VALUES (:coupon_id, :version, :log,"
    " :partition, :first, :name, :quantity, :waitlist, :opens_at, :closes_at, :override, :archived_at, :changed_by,"
    " CASE WHEN :published THEN now() END)"
)


def change_columns(coupon: Coupon) -> dict[str, Any]:
    """Return the values that an operator sets, as columns."""
    return {
        "name": coupon.name,
        "quantity": coupon.quantity,
        "waitlist": coupon.waitlist,
        "opens_at": to_optional_datetime(coupon.opens_at_ms),
        "closes_at": to_optional_datetime(coupon.closes_at_ms),
        "override": coupon.override.value,
        "archived_at": to_optional_datetime(coupon.archived_at_ms),
    }


def _version(coupon: Coupon, changed_by: str) -> dict[str, object]:
    return {"coupon_id": coupon.id, "version": coupon.version, "changed_by": changed_by, **change_columns(coupon)}


def unpublished_coupon_ids(tx: Connection, limit: int) -> list[int]:
    """Return ids of coupons with a change that the gate does not have."""
    query = "SELECT DISTINCT coupon_id FROM coupon_changes WHERE published_at IS NULL ORDER BY coupon_id LIMIT :limit"
    return list(tx.execute(text(query), {"limit": limit}).scalars())


def mark_published(tx: Connection, coupons: Iterable[Coupon]) -> None:
    """Record that the gate has these versions, which include all before them."""
    versions = [{"id": coupon.id, "version": coupon.version} for coupon in coupons]
    if versions:
        tx.execute(
            text(
                "UPDATE coupon_changes SET published_at = now()"
                " WHERE published_at IS NULL AND coupon_id = :id AND version <= :version"
            ),
            versions,
        )


def has_overdue(tx: Connection, grace_seconds: float) -> bool:
    """Return whether a change has been unpublished for longer than the grace period."""
    query = (
        "SELECT EXISTS (SELECT FROM coupon_changes WHERE published_at IS NULL"
        " AND changed_at < now() - make_interval(secs => :grace))"
    )
    return bool(tx.execute(text(query), {"grace": grace_seconds}).scalar_one())
