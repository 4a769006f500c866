"""The model's database: plain values with transactions that can be rolled back; counters are counted from the rows."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import NamedTuple

from service.domain.coupon import Coupon
from service.domain.dead_letter import DeadLetterState
from service.domain.decide import Outcome, PriorRequests
from service.domain.request import FINAL_STATES, LIVE_STATES, LogPosition, ReasonCode, Request, RequestState
from service.store.checkpoints import CheckpointAdvance
from service.verification.order import CouponVersion, DecidedRequest

LOG_ID = 1
#: coupon id and user id
Pair = tuple[int, int]


def pair_of(request: Request) -> Pair:
    return request.coupon_id, request.user_id


def coupon_version(coupon: Coupon, since: tuple[int, int] | None, number: int) -> CouponVersion:
    """Build the record of a coupon's values; the model measures its time in versions."""
    return CouponVersion(since, coupon.quantity, coupon.override, coupon.opens_at_ms, coupon.closes_at_ms, number)


class Row(NamedTuple):
    """The decision for a record."""

    request: Request
    state: RequestState
    code: ReasonCode | None
    sequence: int | None
    attempts: int
    #: the newest version number of the coupon when this was written
    decided_at: int

    @property
    def is_live(self) -> bool:
        """Whether the user can have no other request for the coupon because of this one."""
        return self.state in LIVE_STATES


class DeadLetter(NamedTuple):
    """A dead letter; its request is None as long as the record is unreadable."""

    request: Request | None
    state: DeadLetterState
    #: it has been replayed at least once
    replayed: bool


@dataclass
class Database:
    """All tables."""

    #: coupons as operators have set them; their counters stay 0 here
    values: dict[int, Coupon]
    #: next offset of each partition
    offsets: dict[int, int]
    versions: dict[int, tuple[CouponVersion, ...]]
    rows: dict[LogPosition, Row] = field(default_factory=dict)
    #: attempts of held requests that count for the retry policy; 0 for standby requests
    retries: dict[LogPosition, int] = field(default_factory=dict)
    dead_letters: dict[LogPosition, DeadLetter] = field(default_factory=dict)
    #: decisions that have not reached the gate
    unpublished: tuple[Outcome, ...] = ()

    @classmethod
    def of_coupons(cls, coupons: Iterable[Coupon], partitions: Iterable[int]) -> "Database":
        """Return a database without decisions."""
        values = {coupon.id: coupon for coupon in coupons}
        first = {coupon.id: coupon_version(coupon, None, 0) for coupon in values.values()}
        versions = {coupon_id: (version,) for coupon_id, version in first.items()}
        return cls(values, dict.fromkeys(partitions, 0), {**versions})

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Roll everything back if the block raises; a nested block is a savepoint."""
        before = self.copy()
        try:
            yield
        except BaseException:
            vars(self).update(vars(before))
            raise

    def copy(self) -> "Database":
        """Return a snapshot."""
        return Database(**{name: copy(value) for name, value in vars(self).items()})

    def coupon(self, coupon_id: int) -> Coupon:
        """Return the coupon with its counters."""
        states = [row.state for row in self.rows_of(coupon_id)]
        issued, held, standby = map(states.count, (RequestState.ISSUED, RequestState.RETRYING, RequestState.STANDBY))
        return self.values[coupon_id]._replace(issued=issued, held=held, standby=standby)

    def coupons(self, requests: Iterable[Request]) -> dict[int, Coupon]:
        """Return the existing coupons of these requests, by id."""
        ids = {request.coupon_id for request in requests}
        return {coupon_id: self.coupon(coupon_id) for coupon_id in ids if coupon_id in self.values}

    def rows_of(self, coupon_id: int) -> list[Row]:
        """Return the coupon's rows in the order of their log positions."""
        rows = (row for row in self.rows.values() if row.request.coupon_id == coupon_id)
        return sorted(rows, key=lambda row: row.request.log_position)

    def prior_requests(self, requests: Iterable[Request]) -> dict[Pair, PriorRequests]:
        """Return what the database has of each coupon and user that these requests name."""
        found = {pair_of(request): PriorRequests() for request in requests}
        for row in self.rows.values():
            if prior := found.get(pair_of(row.request)):
                prior.request_ids.add(row.request.request_id)
                prior.live = prior.live or row.is_live
        return found

    def live(self, requests: Iterable[Request]) -> dict[Pair, str]:
        """Return the id of the live request, if any, of each coupon and user that these requests name."""
        asked = set(map(pair_of, requests))
        rows = (row.request for row in self.rows.values() if row.is_live)
        return {pair_of(request): request.request_id for request in rows if pair_of(request) in asked}

    def fenced(self, expected: Mapping[int, int]) -> set[int]:
        """Return the partitions whose next offset is not the expected one."""
        return {partition for partition, offset in expected.items() if self.offsets[partition] != offset}

    def advance(self, advances: Iterable[CheckpointAdvance]) -> None:
        """Move the next offset of each partition that is at the expected one."""
        self.offsets |= {
            advance.partition: advance.next_offset
            for advance in advances
            if self.offsets[advance.partition] == advance.expected_offset
        }

    def write(self, outcomes: Iterable[Outcome], *, attempts: int = 0) -> None:
        """Insert rows, or update existing ones and add `attempts` to theirs."""
        for outcome in outcomes:
            request, state, code, sequence = outcome
            old = self.rows.get(request.log_position)
            total = int(state is not RequestState.STANDBY) if old is None else old.attempts + attempts
            newest = len(self.versions.get(request.coupon_id, ())) - 1
            row = Row(old.request if old else request, state, code, sequence, total, newest)
            self.rows[request.log_position] = row
            self.unpublished += (outcome,)

    def add_dead_letter(self, log_position: LogPosition, request: Request | None) -> None:
        """Insert a dead letter; one that was replayed and is dead again becomes new again."""
        before = self.dead_letters.get(log_position)
        self.dead_letters[log_position] = DeadLetter(
            request, DeadLetterState.NEW, replayed=before is not None and before.replayed
        )

    def decided_requests(self, coupon_id: int) -> Iterator[DecidedRequest]:
        """Yield the coupon's rows as the verification reads them."""
        for row in self.rows_of(coupon_id):
            position, request_id = row.request.log_position, row.request.request_id
            replayed = position in self.dead_letters and self.dead_letters[position].replayed
            decided_at = row.decided_at if row.state in FINAL_STATES else None
            yield DecidedRequest(
                (LOG_ID, position.offset),
                row.state,
                row.code,
                row.sequence,
                row.attempts,
                decided_at,
                replayed,
                is_ours(request_id),
            )


def is_ours(request_id: str) -> bool:
    """Return whether the id belongs to a request that passed the gate."""
    return request_id.startswith("ours")
