"""Step 9: the proof of P1 to P5, from the log's first record, the database and what clients were told."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection, Engine, text

from service.config import Settings
from service.domain.record import Raw
from service.domain.request import FINAL, Request
from service.domain.request_id import Claim, RequestIds
from service.store import engine, evidence, offsets, requests
from service.store.evidence import Row
from service.stream import log_reader
from service.stream.codec import Reader
from service.stream.topics import Topic
from service.usecases.history import Told

_TWICE = ("users_with_two", "request_ids_with_two", "duplicates_of_nothing")


class Check(NamedTuple):
    """One promise, or part of it, with the numbers that decide it: those named in `must_be_zero` have to be 0."""

    promise: str
    what: str
    numbers: dict[str, int]
    must_be_zero: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts the promise."""
        return not any(self.numbers[name] for name in self.must_be_zero)


class Verifier:
    """Reads everything again; changes nothing."""

    def __init__(self, settings: Settings, store: Engine, log: int, ids: RequestIds, reader: Reader) -> None:
        self._settings = settings
        self._store = store
        self._log = log
        self._ids = ids
        self._reader = reader
        #: request ids in the log beyond what has been decided
        self._undecided: set[str] = set()

    def verify(self, history: Iterable[Told] | None = None) -> list[Check]:
        """Every check, the history's where there is one; raises Unavailable when a part is away."""
        with engine.answering(self._store) as tx:
            tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            tx.execute(text("SET LOCAL statement_timeout = 0"))
            tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))  # it reads the log meanwhile
            checks = [
                Check("P1", "never over-issued", evidence.over_issued(tx, self._log), ("over_issued", "miscounted")),
                Check("P2", "one per user", evidence.twice(tx, self._log), _TWICE),
                Check(
                    "P3",
                    "in order",
                    evidence.disorder(tx, self._log),
                    ("coupons_with_gaps", "out_of_order", "sold_out_wrongly"),
                ),
                Check("P4", "nothing lost in the log", self._log_against_rows(tx), ("lost", "phantom", "contradicted")),
                Check("P4", "every dead one is kept", evidence.in_flight(tx, self._log), ("dead_without_letter",)),
            ]
            if history is not None:
                checks.append(
                    Check("P5", "the answers hold", self._answers(tx, history), ("lost", "contradicted", "phantom"))
                )
        return checks

    def _log_against_rows(self, tx: Connection) -> dict[str, int]:
        """Walks the log and the rows side by side: each record that was passed has its row, and no row lacks one."""
        found: Counter[str] = Counter(records=0, redelivered=0, undecided=0, lost=0, phantom=0, contradicted=0)
        positions = offsets.known(tx, self._log)
        for partition in range(self._settings.topic_partitions):
            passed = positions[partition].next_offset if partition in positions else 0
            found.update(self._partition(tx, partition, passed))
        return dict(found)

    def _partition(self, tx: Connection, partition: int, passed: int) -> Iterator[str]:
        rows = evidence.rows(tx, self._log, partition)
        row = next(rows, None)
        for raw in log_reader.read(self._settings, Topic.ISSUE_COUPON, partition, None):
            yield "records"
            while row is not None and row.offset < raw.place.offset:
                yield "phantom"
                row = next(rows, None)
            mine = row if row is not None and row.offset == raw.place.offset else None
            if verdict := self._verdict(tx, raw, mine, passed):
                yield verdict
            row = next(rows, None) if mine else row
        yield from ("phantom" for _ in (row, *rows) if _ is not None)

    def _verdict(self, tx: Connection, raw: Raw, row: Row | None, passed: int) -> str | None:
        request = self._reader.read(raw).request
        if raw.place.offset >= passed:
            if request:
                self._undecided.add(request.request_id)
            return "contradicted" if row else "undecided"
        if row is None:
            again = request and requests.find(tx, request.coupon_id, request.user_id, request.request_id)
            return "redelivered" if again else "lost"
        return None if self._agrees(row, request) else "contradicted"

    def _agrees(self, row: Row, request: Request | None) -> bool:
        """A record without a request has no request's row; one with a request has that of the same id and user.

        An id that was derived before a key's rotation is another text for the same claim.
        """
        if request is None or row.request_id is None:
            return request is None and row.state in ("poison", "dead")
        same = row.request_id == request.request_id or (
            not request.accepted and self._ids.read(row.request_id) == self._ids.read(request.request_id)
        )
        return same and (row.coupon_id, row.user_id) == (request.coupon_id, request.user_id)

    def _answers(self, tx: Connection, history: Iterable[Told]) -> dict[str, int]:
        """Each receipt is in the log, each `duplicate` names the user's own first request, and no row came unasked."""
        found: Counter[str] = Counter(
            accepted=0, issued=0, refused=0, dead=0, in_flight=0, unknown=0, lost=0, contradicted=0, phantom=0
        )
        asked: set[tuple[int, int]] = set()
        for told in history:
            if told.outcome != "refused":
                asked.add((told.coupon_id, told.user_id))
                found[told.outcome] += 1
            if told.request_id and (verdict := self._answer(tx, told, told.request_id)):
                found[verdict] += 1
        found["phantom"] = sum(1 for claim in self._accepted(tx) if claim[:2] not in asked)
        return dict(found)

    def _answer(self, tx: Connection, told: Told, request_id: str) -> str | None:
        claim = self._ids.read(request_id)
        if claim is None or claim[:2] != (told.coupon_id, told.user_id):
            return "contradicted"
        row = requests.find(tx, claim.coupon_id, claim.user_id, request_id)
        if row is None and request_id not in self._undecided:
            return "lost" if told.outcome == "accepted" else "contradicted"
        if told.outcome == "refused":
            return None
        return row.state.value if row and row.state in FINAL else "in_flight"

    def _accepted(self, tx: Connection) -> Iterator[Claim]:
        """The claims of all rows whose request came through the API."""
        claims = (self._ids.read(request_id) for request_id in evidence.request_ids(tx, self._log))
        return (claim for claim in claims if claim and not claim.foreign)
