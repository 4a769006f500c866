"""Queries on coupons."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, insert, select, text

from service.domain.coupon import Coupon, Override
from service.store.engine import milliseconds, moment
from service.store.tables import CouponRow

_coupons = CouponRow.__table__  # type: ignore[attr-defined]


def create(
    tx: Connection, name: str, quantity: int, waitlist: int, opens_at_ms: int | None, closes_at_ms: int | None
) -> Coupon:
    """Stores a new coupon with nothing issued."""
    row = tx.execute(
        insert(_coupons)
        .values(
            name=name,
            quantity=quantity,
            waitlist=waitlist,
            opens_at=None if opens_at_ms is None else moment(opens_at_ms),
            closes_at=None if closes_at_ms is None else moment(closes_at_ms),
        )
        .returning(_coupons)
    ).one()
    return _coupon(row)


def get(tx: Connection, coupon_id: int) -> Coupon | None:
    """The coupon, or None."""
    row = tx.execute(select(_coupons).where(_coupons.c.id == coupon_id)).one_or_none()
    return None if row is None else _coupon(row)


def page(tx: Connection, after_id: int, limit: int) -> list[Coupon]:
    """Up to `limit` coupons with an id above `after_id`, in id order (a keyset page)."""
    rows = tx.execute(select(_coupons).where(_coupons.c.id > after_id).order_by(_coupons.c.id).limit(limit))
    return [_coupon(row) for row in rows]


def some(tx: Connection, coupon_ids: Iterable[int]) -> dict[int, Coupon]:
    """Those of the coupons that exist, by id."""
    rows = tx.execute(select(_coupons).where(_coupons.c.id.in_(sorted(set(coupon_ids)))))
    return {row.id: _coupon(row) for row in rows}


_LOCK = text("SELECT * FROM coupons WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE")


def lock(tx: Connection, coupon_ids: Iterable[int]) -> dict[int, Coupon]:
    """Locks the coupons in id order until the transaction ends; who decides about a coupon holds its lock."""
    rows = tx.execute(_LOCK, {"ids": sorted(set(coupon_ids))})
    return {row.id: _coupon(row) for row in rows}


def _coupon(row: Any) -> Coupon:
    return Coupon(
        row.id,
        row.name,
        row.quantity,
        row.waitlist,
        row.issued,
        row.held,
        row.opens_at and milliseconds(row.opens_at),
        row.closes_at and milliseconds(row.closes_at),
        Override(row.override),
    )
