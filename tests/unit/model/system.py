"""The model of the whole system: the log, the database, the gate, and the ways by which requests get into the log."""

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
from tests.unit.model.database import Database, Pair, is_ours, pair_of
from tests.unit.model.gate import Gate

#: the partition of each coupon that requests name
PARTITION_OF = {1: 0, 2: 0, 3: 1, 9: 1}
#: a coupon that does not exist
UNKNOWN_COUPON = 9
_POISON = Failure(FailureClass.POISON, "Poison", "unreadable")


class AppendResult(StrEnum):
    """The result of producing a record."""

    #: the broker has acknowledged it
    ACKNOWLEDGED = "acknowledged"
    #: it is in the log, but the API got no acknowledgement
    UNACKNOWLEDGED = "unacknowledged"
    #: it never reached the log, and the API cannot know that
    LOST = "lost"
    #: it was not sent, and the API knows that
    NOT_SENT = "not sent"


class UngatedRecord(StrEnum):
    """A record that did not pass the gate, or is unreadable so that this cannot be seen."""

    FOREIGN = "foreign"
    #: a foreign record in a form that only a later version can read
    FOREIGN_POISON = "foreign poison"
    #: an unacknowledged record and its repeat, both in such a form
    OUR_POISON_TWICE = "our poison, twice"


class SystemModel:
    """A log of two partitions, a database and a gate."""

    def __init__(self, coupons: Iterable[Coupon]) -> None:
        self.now_ms = 0
        self.log: dict[int, list[Record]] = {0: [], 1: []}
        #: the requests in unreadable records
        self.poison: dict[LogPosition, Request] = {}
        #: ids of the requests that were answered with 202
        self.accepted: set[str] = set()
        self.gate = Gate()
        self.db = Database.of_coupons(coupons, self.log)

    def append(self, pair: Pair, request_id: str | None = None, *, readable: bool = True) -> None:
        """Append a record; without a request id it is a foreign one."""
        self.now_ms += 1
        partition = PARTITION_OF[pair[0]]
        position = LogPosition(partition, len(self.log[partition]))
        request_id = request_id or f"foreign-{position.partition}-{position.offset}"
        request = Request(position, *pair, request_id, self.now_ms, self.now_ms, is_ours(request_id))
        raw = RawRecord(position, None, None, (), self.now_ms)
        if not readable:
            self.poison[position] = request
        self.log[partition].append(Record.of(raw, request) if readable else Record.of(raw, None, _POISON))

    def submit(self, pair: Pair, result: AppendResult) -> None:
        """service/usecases/accept.py: a user's request at the gate."""
        self.now_ms += 1
        request_id = f"ours-{self.now_ms}"
        if pair[0] not in self.gate.coupons:
            self.fill(pair[0])
        verdict = self.gate.admit(pair, request_id, self.now_ms)
        if verdict is Verdict.UNACKNOWLEDGED and not self._has_row(self.gate.seats[pair]):
            self._produce(pair, self.gate.seats[pair], result, first=False)
        elif verdict is Verdict.ADMITTED:
            self._produce(pair, request_id, result, first=True)

    def submit_without_redis(self, pair: Pair) -> None:
        """service/usecases/gate_fallback.py: the database does not see undecided requests, and admits too many."""
        self.now_ms += 1
        seat = SeatRequest(*pair, f"ours-{self.now_ms}", self.now_ms)
        rows = self.db.rows_of(pair[0])
        live = [row.request.request_id for row in rows if row.is_live and pair_of(row.request) == pair]
        if admission_of(seat, self.db.coupon(pair[0]), live[0] if live else None).verdict is Verdict.ADMITTED:
            self.append(pair, seat.request_id)
            self.accepted.add(seat.request_id)

    def append_ungated(self, pair: Pair, kind: UngatedRecord) -> None:
        """Append a record that did not pass the gate."""
        if kind is not UngatedRecord.OUR_POISON_TWICE or pair[0] == UNKNOWN_COUPON:
            self.append(pair, readable=kind is UngatedRecord.FOREIGN)
            return
        request_id = f"ours-{self.now_ms}-poison"
        for _ in range(2):
            self.append(pair, request_id, readable=False)

    def fill(self, coupon_id: int) -> None:
        """service/usecases/gate_fill.py: fill the gate from the database and the undecided end of the log."""
        undecided = [
            request
            for request in self.undecided(PARTITION_OF[coupon_id])
            if request.accepted and request.coupon_id == coupon_id
        ]
        rows = [row.request for row in self.db.rows_of(coupon_id) if row.is_live]
        # the last request of a user gets the seat: a row before an undecided request, of these the first in the log
        self.gate.fill(
            self.db.coupon(coupon_id),
            {pair_of(request): request.request_id for request in (*reversed(undecided), *rows)},
        )

    def undecided(self, partition: int) -> list[Request]:
        """Return the readable requests from the partition's next offset to the end."""
        records = self.log[partition][self.db.offsets[partition] :]
        return [record.request for record in records if record.request]

    def sweep(self) -> None:
        """service/usecases/gate_sync.py: free the seats of requests that certainly never reached the log."""
        undecided = {request.request_id for request in chain(*map(self.undecided, self.log))}
        for pair, request_id in list(self.gate.seats.items()):
            if request_id not in self.gate.unacknowledged - undecided:
                continue
            if self._has_row(request_id):
                self.gate.unacknowledged.discard(request_id)
            else:
                self.gate.release(pair, request_id)

    def _has_row(self, request_id: str) -> bool:
        return any(row.request.request_id == request_id for row in self.db.rows.values())

    def _produce(self, pair: Pair, request_id: str, result: AppendResult, *, first: bool) -> None:
        if result in (AppendResult.ACKNOWLEDGED, AppendResult.UNACKNOWLEDGED):
            self.append(pair, request_id)
        if result is AppendResult.ACKNOWLEDGED:
            self.gate.unacknowledged.discard(request_id)
            self.accepted.add(request_id)
        if result is AppendResult.NOT_SENT and first:
            self.gate.release(pair, request_id)
