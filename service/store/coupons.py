"""Queries on coupons."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, insert, or_, select, text

from service.domain.coupon import Coupon, CouponChange, CouponFilter, CouponState, Override
from service.store import coupon_changes
from service.store.tables import CouponRow
from service.timestamps import to_datetime, to_milliseconds, to_optional_datetime

_coupons = CouponRow.__table__  # type: ignore[attr-defined]
#: the collation that says which letters are the same in upper and lower case, whatever the database's own is
_LETTERS = "pg_c_utf8"
#: a sort of so many rows takes a few milliseconds; they are found by the index coupons_unarchived
_MAX_RANKED = 10_000
_ABOUT_TO_OPEN = timedelta(hours=1)


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
    opens_at, closes_at = to_optional_datetime(opens_at_ms), to_optional_datetime(closes_at_ms)
    values = {"name": name, "quantity": quantity, "waitlist": waitlist, "opens_at": opens_at, "closes_at": closes_at}
    coupon = _coupon(tx.execute(insert(_coupons).values(values).returning(_coupons)).one())
    coupon_changes.insert_initial(tx, coupon, created_by)
    return coupon


def update(tx: Connection, new: CouponChange) -> None:
    """Store new values of a locked coupon and where they take effect; triggers maintain its counters."""
    values = {**coupon_changes.change_columns(new.coupon), "version": new.coupon.version, "updated_at": func.now()}
    tx.execute(_coupons.update().where(_coupons.c.id == new.coupon.id).values(values))
    coupon_changes.insert(tx, new)


def get(tx: Connection, coupon_id: int) -> Coupon | None:
    """Return the coupon, or None."""
    row = tx.execute(select(_coupons).where(_coupons.c.id == coupon_id)).one_or_none()
    return None if row is None else _coupon(row)


def page(tx: Connection, filters: CouponFilter, after_id: int, limit: int) -> list[Coupon]:
    """Return up to `limit` matching coupons with an id above `after_id`, in id order (keyset pagination)."""
    matching = select(_coupons).where(_coupons.c.id > after_id)
    if filters.name is not None:
        name = _coupons.c.name.collate(_LETTERS)
        matching = matching.where(name.icontains(filters.name, autoescape=True))
    if filters.state is not None:
        matching = matching.where(_state_at(to_datetime(filters.at_ms)) == filters.state.value)
    if filters.archived is not None:
        archived_at = _coupons.c.archived_at
        matching = matching.where(archived_at.is_not(None) if filters.archived else archived_at.is_(None))
    return [_coupon(row) for row in tx.execute(matching.order_by(_coupons.c.id).limit(limit))]


def on_sale_first(tx: Connection, at_ms: int, limit: int) -> list[Coupon]:
    """Return up to `limit` coupons that are not archived, by what an operator watches.

    First those that are open, paused or about to open, then those that open later, sold-out ones, closed ones; of each
    the one that opened last is first. Of more than _MAX_RANKED coupons the newest are looked at.
    """
    unarchived = select(_coupons).where(_coupons.c.archived_at.is_(None))
    column = unarchived.order_by(_coupons.c.id.desc()).limit(_MAX_RANKED).subquery().c
    state, opens_at = _state_at(to_datetime(at_ms), column), func.coalesce(column.opens_at, column.created_at)
    is_later = and_(state == CouponState.SCHEDULED.value, opens_at > to_datetime(at_ms) + _ABOUT_TO_OPEN)
    rank = case(
        (is_later, 1), (state == CouponState.SOLD_OUT.value, 2), (state == CouponState.CLOSED.value, 3), else_=0
    )
    ranked = select(*column).order_by(rank, opens_at.desc(), column.id.desc())
    return [_coupon(row) for row in tx.execute(ranked.limit(limit))]


def _state_at(at: datetime, column: Any = _coupons.c) -> ColumnElement[str]:
    """Return Coupon.state() as an expression on these columns; a test compares the two."""
    closed = or_(column.override == Override.CLOSED.value, column.closes_at <= at)
    return case(
        (closed, CouponState.CLOSED.value),
        (column.override == Override.PAUSED.value, CouponState.PAUSED.value),
        (column.opens_at > at, CouponState.SCHEDULED.value),
        (column.issued >= column.quantity, CouponState.SOLD_OUT.value),
        else_=CouponState.OPEN.value,
    )


def get_many(tx: Connection, coupon_ids: Iterable[int]) -> dict[int, Coupon]:
    """Return those of the coupons that exist, by id."""
    rows = tx.execute(select(_coupons).where(_coupons.c.id.in_(sorted(set(coupon_ids)))))
    return {row.id: _coupon(row) for row in rows}


def largest_id(tx: Connection) -> int:
    """Return the largest id of a coupon, or 0 if there is none."""
    return tx.execute(select(func.max(_coupons.c.id))).scalar() or 0


_LOCKED = "FROM coupons WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE"
_LOCK = text(f"SELECT * {_LOCKED}")
#: the same lock, with the columns of CouponCounts
LOCK_COUNTS = text(f"SELECT id, quantity, issued, held, standby, (override = '{Override.CLOSED.value}')::int {_LOCKED}")


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
        to_milliseconds(row.created_at),
        to_milliseconds(row.updated_at),
        row.archived_at and to_milliseconds(row.archived_at),
    )
