"""Queries on coupons."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, func, insert, select, text

from service.domain.coupon import Coupon, CouponChange, Override
from service.store import coupon_changes
from service.store.tables import CouponRow
from service.timestamps import to_milliseconds

_coupons = CouponRow.__table__  # type: ignore[attr-defined]


def create(
    tx: Connection,
    name: str,
    quantity: int,
    waitlist: int,
    opens_at_ms: int | None,
    closes_at_ms: int | None,
    created_by: str,
) -> Coupon:
    """Store a new coupon with nothing issued."""
    new = Coupon(0, name, quantity, waitlist, 0, 0, 0, opens_at_ms, closes_at_ms, Override.NONE, 0)
    values = coupon_changes.change_columns(new)
    coupon = _coupon(tx.execute(insert(_coupons).values(name=name, **values).returning(_coupons)).one())
    coupon_changes.insert_initial(tx, coupon, created_by)
    return coupon


def update(tx: Connection, new: CouponChange) -> None:
    """Store new values of a locked coupon and where they take effect; triggers maintain its counters."""
    values = coupon_changes.change_columns(new.coupon)
    tx.execute(_coupons.update().where(_coupons.c.id == new.coupon.id).values(version=new.coupon.version, **values))
    coupon_changes.insert(tx, new)


def get(tx: Connection, coupon_id: int) -> Coupon | None:
    """Return the coupon, or None."""
    row = tx.execute(select(_coupons).where(_coupons.c.id == coupon_id)).one_or_none()
    return None if row is None else _coupon(row)


def page(tx: Connection, after_id: int, limit: int) -> list[Coupon]:
    """Return up to `limit` coupons with an id above `after_id`, in id order (keyset pagination)."""
    rows = tx.execute(select(_coupons).where(_coupons.c.id > after_id).order_by(_coupons.c.id).limit(limit))
    return [_coupon(row) for row in rows]


def get_many(tx: Connection, coupon_ids: Iterable[int]) -> dict[int, Coupon]:
    """Return those of the coupons that exist, by id."""
    rows = tx.execute(select(_coupons).where(_coupons.c.id.in_(sorted(set(coupon_ids)))))
    return {row.id: _coupon(row) for row in rows}


def largest_id(tx: Connection) -> int:
    """Return the largest id of a coupon, or 0 if there is none."""
    return tx.execute(select(func.max(_coupons.c.id))).scalar() or 0


_LOCK = text("SELECT * FROM coupons WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE")


def lock(tx: Connection, coupon_ids: Iterable[int]) -> dict[int, Coupon]:
    """Lock the coupons in id order until the transaction ends; every decision about a coupon needs this lock."""
    rows = tx.execute(_LOCK, {"ids": sorted(set(coupon_ids))})
    return {row.id: _coupon(row) for row in rows}


def with_decidable_standby(tx: Connection, limit: int) -> list[int]:
    """Return ids of coupons whose standby requests can be promoted or refused now."""
    query = (
        "SELECT id FROM coupons WHERE standby > 0 AND (held = 0 OR issued + held < quantity) ORDER BY id LIMIT :limit"
    )
    return list(tx.execute(text(query), {"limit": limit}).scalars())


def _coupon(row: Any) -> Coupon:
    return Coupon(
        row.id,
        row.name,
        row.quantity,
        row.waitlist,
        row.issued,
        row.held,
        row.standby,
        row.opens_at and to_milliseconds(row.opens_at),
        row.closes_at and to_milliseconds(row.closes_at),
        Override(row.override),
        row.version,
    )
