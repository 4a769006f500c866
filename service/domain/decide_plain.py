"""Decides a plain batch: the same decisions as `decide`, for requests that need no attention, as columns.

A test compares the two for random batches. What is not plain is left to `decide`: the caller gets None.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple

from service.domain.decide import PriorRequests
from service.domain.failures import UNVERIFIED
from service.domain.record import Record
from service.domain.request import ReasonCode

_ACCEPTED, _FAULT = map(Record._fields.index, ("accepted", "fault"))


class PlainColumns(NamedTuple):
    """The accepted requests of a batch: one value of each column for each record, in the order of the records.

    They are the first fields of Record.
    """

    partitions: Sequence[int]
    offsets: Sequence[int]
    coupon_ids: Sequence[int]
    user_ids: Sequence[int]
    request_ids: Sequence[str]
    requested_at_ms: Sequence[int]

    def only(self, selected: Sequence[bool]) -> "PlainColumns":
        """Return the columns of the selected records."""
        columns: list[Any] = [list(compress(column, selected)) for column in self]
        return PlainColumns(*columns)


def needs_attention(record: Record) -> bool:
    """Return whether a batch with this record is not plain.

    Its request is foreign, it carries an injected fault, or no key verifies its request id: then it must be known that
    no key is missing. A record that cannot be decoded becomes a dead letter, whatever else there is.
    """
    if record.poison:
        return record.poison.error_type == UNVERIFIED
    return not record.accepted or record.fault is not None


def plain_columns(records: Sequence[Record]) -> PlainColumns | None:
    """Return the columns of the accepted requests, or None if there are none or one of the records needs attention."""
    columns: list[Any] = [*zip(*records, strict=True)]
    if records and not all(columns[_ACCEPTED]):
        if any(map(needs_attention, records)):
            return None
        columns = [*zip(*(record for record in records if record.accepted), strict=True)]
    if not columns or any(columns[_FAULT]):
        return None
    return PlainColumns(*columns[: len(PlainColumns._fields)])


class CouponCounts(NamedTuple):
    """What a decision needs of a locked coupon."""

    quantity: int
    issued: int
    held: int
    standby: int
    is_closed: bool

    @property
    def makes_wait(self) -> bool:
        """Whether requests are on standby, or the next one would be: no seat is free, and one is held."""
        return self.standby > 0 or (self.held > 0 and self.issued + self.held >= self.quantity)


class PlainDecisions(NamedTuple):
    """The decisions about a plain batch."""

    #: for each record, whether it gets a row; a redelivery gets none
    is_new: list[bool]
    #: for each new record, its sequence, or 0 if it is refused
    sequences: list[int]
    #: for each new record, why it is refused, or None if it is issued
    codes: list[ReasonCode | None]
    #: whether the last seat of a coupon was issued
    sold_out: bool


def coupons_to_look_up(
    columns: PlainColumns, coupons: Mapping[int, CouponCounts], with_ended: Collection[int]
) -> set[int]:
    """Return the coupons of which the users' earlier requests must be known; the others can be decided without.

    If a coupon is open and has a seat for each of its requests, the first request of each user becomes a live row.
    The database refuses that row if the user has a live one already. So only ended requests can go unnoticed, and those
    of a coupon in `with_ended` are looked up: a redelivery of an ended request would get a second row.
    """
    return {
        coupon_id
        for coupon_id, count in Counter(columns.coupon_ids).items()
        if (coupon := coupons.get(coupon_id)) is not None
        and (coupon_id in with_ended or coupon.is_closed or count > coupon.quantity - coupon.held - coupon.issued)
    }


def decide_plain(
    columns: PlainColumns, coupons: Mapping[int, CouponCounts], prior: Mapping[tuple[int, int], PriorRequests]
) -> PlainDecisions | None:
    """Decide the requests in the order given; `coupons` and `prior` are as in `decide`, and are not changed.

    `prior` may lack the users of coupons that are not in coupons_to_look_up(): if one of them has a live request, the
    database refuses the rows. Return None if a coupon is unknown, if requests are on standby, or if one would be: no
    seat is free and one is held.
    """
    if not coupons.keys() >= set(columns.coupon_ids) or any(coupon.standby for coupon in coupons.values()):
        return None
    issued = {coupon_id: coupon.issued for coupon_id, coupon in coupons.items()}
    last = {coupon_id: coupon.quantity - coupon.held for coupon_id, coupon in coupons.items()}
    known_ids = {request_id for earlier in prior.values() for request_id in earlier.request_ids}
    live = {pair for pair, earlier in prior.items() if earlier.live}
    decisions = PlainDecisions([], [], [], sold_out=False)
    is_new, sequences, codes, _ = decisions
    pairs = zip(columns.coupon_ids, columns.user_ids, strict=True)
    for pair, request_id in zip(pairs, columns.request_ids, strict=True):
        if request_id in known_ids:
            is_new.append(False)
            continue
        is_new.append(True)
        known_ids.add(request_id)
        coupon_id = pair[0]
        sequence, code = 0, None
        if coupons[coupon_id].is_closed:
            code = ReasonCode.CLOSED
        elif pair in live:
            code = ReasonCode.DUPLICATE
        elif issued[coupon_id] < last[coupon_id]:
            issued[coupon_id] = sequence = issued[coupon_id] + 1
            live.add(pair)
        elif coupons[coupon_id].held:
            return None
        else:
            code = ReasonCode.SOLD_OUT
        sequences.append(sequence)
        codes.append(code)
    sold_out = any(coupon.issued < coupon.quantity <= issued[coupon_id] for coupon_id, coupon in coupons.items())
    return decisions._replace(sold_out=sold_out)
