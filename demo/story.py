"""Three stories of the sale, found in rows, pages and notices: a seat that was held, one handed on, a replay."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from demo.findings import Findings
from demo.pages import Page
from demo.view import Row


class Kept(NamedTuple):
    """A request that failed, kept its seat, and was issued at a later attempt."""

    row: Row
    page: Page
    #: requests behind it in the log that were issued before it
    passed_by: int
    #: requests that heard "sold out" after a 202 before it had its coupon
    sold_out: int


class HandedOn(NamedTuple):
    """A seat that a dead request gave up, and who got it: the lowest of those on standby then."""

    dead: Row
    heir: Row
    #: None: nobody looked while it was on standby
    page: Page | None


class Returned(NamedTuple):
    """A dead request that was brought back: as it was and as it is, and what the receiver was told of it, in order."""

    before: Row
    after: Row
    told: Sequence[str]


def kept(found: Findings) -> list[Kept]:
    """Those whose page was seen to say `retrying`, the one that most were issued before first."""
    stories = [
        _kept(row, page, found.sale.rows)
        for row in found.sale.rows
        if row.state == "issued" and row.attempts > 1 and (page := found.pages.get((row.request_id, "retrying")))
    ]
    return sorted(stories, key=lambda story: story.passed_by, reverse=True)


def _kept(row: Row, page: Page, rows: Sequence[Row]) -> Kept:
    others = [other for other in rows if other.coupon_id == row.coupon_id]
    passed_by = sum(1 for other in others if other.offset > row.offset and _number(other) < _number(row))
    return Kept(row, page, passed_by, sum(1 for other in others if other.code == "sold_out" and _is_before(other, row)))


def _number(row: Row) -> float:
    return float("inf") if row.sequence is None else row.sequence


def _is_before(one: Row, other: Row) -> bool:
    return bool(one.decided_at and other.decided_at and one.decided_at < other.decided_at)


def handed_on(found: Findings) -> list[HandedOn]:
    """Every seat that was given up and handed on: both in one transaction, so they carry the same moment."""
    ranked = sorted(found.sale.rows, key=lambda row: row.offset)
    dead: dict[tuple[int, datetime], list[Row]] = defaultdict(list)
    for row in ranked:
        if row.code == "exhausted" and row.decided_at:
            dead[row.coupon_id, row.decided_at].append(row)
    return [
        HandedOn(one, heir, found.pages.get((heir.request_id, "standby")))
        for (coupon_id, moment), together in dead.items()
        for one, heir in zip(together, _left_at(moment, coupon_id, ranked), strict=False)
        if (heir.state, heir.decided_at) == ("issued", moment)
    ]


def _left_at(moment: datetime, coupon_id: int, ranked: Sequence[Row]) -> list[Row]:
    """Those who never failed and had no answer until then: first who was on standby, behind them who was read later."""
    untried = [row for row in ranked if row.coupon_id == coupon_id and row.attempts == 1]
    return [row for row in untried if row.decided_at and row.decided_at >= moment]


def returned(found: Findings) -> Returned | None:
    """What the operator brought back; None: nothing, or nothing that has a row."""
    name = found.replay.done.request_id if found.replay and found.replay.done else None
    before, after = ([row for row in rows if row.request_id == name] for rows in (found.sale.rows, found.end.rows))
    return Returned(before[0], after[0], found.receiver.heard(after[0].request_id)) if before and after else None
