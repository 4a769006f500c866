"""The database as plain values, with transactions that can be taken back; counters are counted from the rows."""

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

LOG = 1
#: coupon and user
Pair = tuple[int, int]


def pair_of(request: Request) -> Pair:
    return request.coupon_id, request.user_id


def version(coupon: Coupon, since: tuple[int, int] | None, number: int) -> CouponVersion:
    """A coupon's values as recorded; time is counted in its changes."""
    return CouponVersion(since, coupon.quantity, coupon.override, coupon.opens_at_ms, coupon.closes_at_ms, number)


class Row(NamedTuple):
    """What was decided for a record."""

    request: Request
    state: RequestState
    code: ReasonCode | None
    sequence: int | None
    attempts: int
    #: by the clock of the coupon's changes: the number of its newest values when this was written
    decided_at: int

    @property
    def is_live(self) -> bool:
        """Whether it occupies its user's one place with the coupon."""
        return self.state in LIVE_STATES


class Letter(NamedTuple):
    """A dead letter; without a request as long as nobody could read it."""

    request: Request | None
    state: DeadLetterState
    #: it has been replayed once, at least
    replayed: bool


@dataclass
class Database:
    """Everything that is decided."""

    #: as operators have set them; their counters stay 0 here
    values: dict[int, Coupon]
    offsets: dict[int, int]
    versions: dict[int, tuple[CouponVersion, ...]]
    rows: dict[LogPosition, Row] = field(default_factory=dict)
    #: attempts that count for the policy, of those held; 0: on standby
    retries: dict[LogPosition, int] = field(default_factory=dict)
    letters: dict[LogPosition, Letter] = field(default_factory=dict)
    #: decisions that the gate has not heard of
    untold: tuple[Outcome, ...] = ()

    @classmethod
    def of_coupons(cls, coupons: Iterable[Coupon], partitions: Iterable[int]) -> "Database":
        """Nothing is decided yet."""
        values = {one.id: one for one in coupons}
        first = {one.id: version(one, None, 0) for one in values.values()}
        return cls(values, dict.fromkeys(partitions, 0), {one: (version,) for one, version in first.items()})

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing; also a savepoint within one."""
        before = self.copy()
        try:
            yield
        except BaseException:
            vars(self).update(vars(before))
            raise

    def copy(self) -> "Database":
        """As it is now."""
        return Database(**{name: copy(value) for name, value in vars(self).items()})

    def coupon(self, coupon_id: int) -> Coupon:
        """The coupon as its row would be."""
        states = [row.state for row in self.of(coupon_id)]
        issued, held, standby = map(states.count, (RequestState.ISSUED, RequestState.RETRYING, RequestState.STANDBY))
        return self.values[coupon_id]._replace(issued=issued, held=held, standby=standby)

    def coupons(self, requests: Iterable[Request]) -> dict[int, Coupon]:
        """Those that the requests ask for."""
        return {one: self.coupon(one) for one in {request.coupon_id for request in requests} if one in self.values}

    def of(self, coupon_id: int) -> list[Row]:
        """The coupon's rows in the order of their places."""
        rows = (row for row in self.rows.values() if row.request.coupon_id == coupon_id)
        return sorted(rows, key=lambda row: row.request.log_position)

    def known(self, requests: Iterable[Request]) -> dict[Pair, PriorRequests]:
        """What there is of each user who asks."""
        found = {pair_of(request): PriorRequests() for request in requests}
        for row in self.rows.values():
            if mine := found.get(pair_of(row.request)):
                mine.request_ids.add(row.request.request_id)
                mine.live = mine.live or row.is_live
        return found

    def live(self, requests: Iterable[Request]) -> dict[Pair, str]:
        """The live request of each user who asks and has one."""
        asked = set(map(pair_of, requests))
        rows = (row.request for row in self.rows.values() if row.is_live)
        return {pair_of(one): one.request_id for one in rows if pair_of(one) in asked}

    def lock(self, expected: Mapping[int, int]) -> set[int]:
        """The partitions that are not where expected."""
        return {partition for partition, at in expected.items() if self.offsets[partition] != at}

    def advance(self, moves: Iterable[CheckpointAdvance]) -> None:
        """Moves each partition that still is where expected."""
        self.offsets |= {
            to.partition: to.next_offset for to in moves if self.offsets[to.partition] == to.expected_offset
        }

    def write(self, outcomes: Iterable[Outcome], *, spent: int = 0) -> None:
        """New rows, or what became of rows that are there; `spent` attempts are added to these."""
        for outcome in outcomes:
            request, state, code, sequence = outcome
            old = self.rows.get(request.log_position)
            attempts = int(state is not RequestState.STANDBY) if old is None else old.attempts + spent
            at = len(self.versions.get(request.coupon_id, ())) - 1
            self.rows[request.log_position] = Row(old.request if old else request, state, code, sequence, attempts, at)
            self.untold += (outcome,)

    def bury(self, log_position: LogPosition, request: Request | None) -> None:
        """A dead letter; one that was replayed and died again is new again."""
        before = self.letters.get(log_position)
        self.letters[log_position] = Letter(
            request, DeadLetterState.NEW, replayed=before is not None and before.replayed
        )

    def lines(self, coupon_id: int) -> Iterator[DecidedRequest]:
        """The coupon's rows as the proof reads them."""
        for row in self.of(coupon_id):
            place, name = row.request.log_position, row.request.request_id
            replayed = place in self.letters and self.letters[place].replayed
            at = (LOG, place.offset)
            ended = row.decided_at if row.state in FINAL_STATES else None
            yield DecidedRequest(at, row.state, row.code, row.sequence, row.attempts, ended, replayed, is_ours(name))


def is_ours(request_id: str) -> bool:
    """Whether the id was given to a request that came through the gate."""
    return request_id.startswith("ours")
