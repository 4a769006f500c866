"""The log, and the ways by which requests come into it."""

from collections.abc import Iterable
from enum import StrEnum
from itertools import chain

from service.domain.coupon import Coupon
from service.domain.failures import Failure, FailureClass
from service.domain.record import RawRecord, Record
from service.domain.request import LogPosition, Request
from service.gate.async_gate import SeatRequest
from service.gate.keys import Verdict
from service.usecases.gate_fallback import admission_of
from tests.unit.world.database import Database, Pair, is_ours, pair_of
from tests.unit.world.gate import Gate

#: the coupons that requests name, and their partitions
PARTITION_OF = {1: 0, 2: 0, 3: 1, 9: 1}
#: this one does not exist
UNKNOWN = 9
_POISON = Failure(FailureClass.POISON, "Poison", "nobody can read it")


class Append(StrEnum):
    """What becomes of an append."""

    #: the broker said so
    ACKNOWLEDGED = "acknowledged"
    #: it is in the log, but nobody has heard of it
    UNHEARD = "unheard"
    #: it never reached the log, and nobody knows
    LOST = "lost"
    #: it was certainly not sent
    NOT_SENT = "not sent"


class Stray(StrEnum):
    """A record that did not come through the gate, or looks as if it had not."""

    FOREIGN = "foreign"
    #: another producer's, in a form that only a later version can read
    FOREIGN_POISON = "foreign poison"
    #: an unheard append and its repeat, both in such a form
    OUR_POISON_TWICE = "our poison, twice"


class World:
    """A log of two partitions, a database and a gate."""

    def __init__(self, coupons: Iterable[Coupon]) -> None:
        self.now_ms = 0
        self.log: dict[int, list[Record]] = {0: [], 1: []}
        #: what records that nobody can read ask for
        self.poison: dict[LogPosition, Request] = {}
        #: request ids of those who heard 202
        self.receipts: set[str] = set()
        self.gate = Gate()
        self.db = Database.of_coupons(coupons, self.log)

    def append(self, pair: Pair, request_id: str | None = None, *, readable: bool = True) -> None:
        """One more record; without a request id it is another producer's."""
        self.now_ms += 1
        partition = PARTITION_OF[pair[0]]
        place = LogPosition(partition, len(self.log[partition]))
        name = request_id or f"foreign-{place.partition}-{place.offset}"
        request = Request(place, *pair, name, self.now_ms, self.now_ms, is_ours(name))
        raw = RawRecord(place, None, None, (), self.now_ms)
        if not readable:
            self.poison[place] = request
        self.log[partition].append(Record(raw, request) if readable else Record(raw, None, _POISON))

    def ask(self, pair: Pair, end: Append) -> None:
        """service/usecases/accept.py: a user asks at the gate."""
        self.now_ms += 1
        name = f"ours-{self.now_ms}"
        if pair[0] not in self.gate.told:
            self.fill(pair[0])
        verdict = self.gate.admit(pair, name, self.now_ms)
        if verdict is Verdict.UNACKNOWLEDGED and not self.has_row(self.gate.seats[pair]):
            self._send(pair, self.gate.seats[pair], end, first=False)
        elif verdict is Verdict.ADMITTED:
            self._send(pair, name, end, first=True)

    def ask_database(self, pair: Pair) -> None:
        """The same without Redis: the database does not see what is under way, and admits too many."""
        self.now_ms += 1
        seat = SeatRequest(*pair, f"ours-{self.now_ms}", self.now_ms)
        live = [row.request.request_id for row in self.db.of(pair[0]) if row.is_live and pair_of(row.request) == pair]
        if admission_of(seat, self.db.coupon(pair[0]), live[0] if live else None).verdict is Verdict.ADMITTED:
            self.append(pair, seat.request_id)
            self.receipts.add(seat.request_id)

    def stray(self, pair: Pair, stray: Stray) -> None:
        """A record comes that did not pass the gate."""
        if stray is not Stray.OUR_POISON_TWICE or pair[0] == UNKNOWN:
            self.append(pair, readable=stray is Stray.FOREIGN)
            return
        name = f"ours-{self.now_ms}-poison"
        for _ in range(2):
            self.append(pair, name, readable=False)

    def fill(self, coupon_id: int) -> None:
        """service/usecases/gate_fill.py: seats from the database and the undecided tail."""
        tail = [one for one in self.undecided(PARTITION_OF[coupon_id]) if one.accepted and one.coupon_id == coupon_id]
        rows = [row.request for row in self.db.of(coupon_id) if row.is_live]
        # who is written last has the seat: a row rather than the tail, and in the tail the first
        self.gate.fill(self.db.coupon(coupon_id), {pair_of(one): one.request_id for one in (*reversed(tail), *rows)})

    def undecided(self, partition: int) -> list[Request]:
        """What the tail of the partition asks for."""
        tail = self.log[partition][self.db.offsets[partition] :]
        return [record.request for record in tail if record.request]

    def sweep(self) -> None:
        """service/usecases/gate_sync.py: frees the seats of requests that certainly never reached the log."""
        tails = {request.request_id for request in chain(*map(self.undecided, self.log))}
        for pair, name in list(self.gate.seats.items()):
            if name in self.gate.unsettled - tails:
                self._settle(pair, name)

    def has_row(self, request_id: str) -> bool:
        """Whether it is decided."""
        return any(row.request.request_id == request_id for row in self.db.rows.values())

    def _settle(self, pair: Pair, name: str) -> None:
        if self.has_row(name):
            self.gate.unsettled.discard(name)
        else:
            self.gate.release(pair, name)

    def _send(self, pair: Pair, name: str, end: Append, *, first: bool) -> None:
        if end in (Append.ACKNOWLEDGED, Append.UNHEARD):
            self.append(pair, name)
        if end is Append.ACKNOWLEDGED:
            self.gate.unsettled.discard(name)
            self.receipts.add(name)
        if end is Append.NOT_SENT and first:
            self.gate.release(pair, name)
