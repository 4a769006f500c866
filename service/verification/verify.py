"""Step 9: the proof of P1 to P5, from the log's first record, the database and what clients were told."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import Connection, Engine, text

from service.config import Settings
from service.domain.request import FINAL_STATES, ReasonCode
from service.domain.request_id import RequestIds
from service.store import checkpoints, engine
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.verification import queries
from service.verification.history import ClientAnswer
from service.verification.log_audit import LogAudit
from service.verification.order import DecidedRequest, OrderChecker
from service.verification.queries import AnsweredRequest, CouponRequest

_TWICE = ("users_with_two", "request_ids_with_two", "duplicates_of_nothing")
_DISORDER = (
    "coupons_with_gaps",
    "out_of_order",
    "sold_out_too_early",
    "served_after_sold_out",
    "decided_though_closed",
    "window_ignored",
)
_WALKED = (
    "records",
    "redelivered",
    "undecided",
    "archived",
    "readable_by_now",
    "lost",
    "phantom",
    "contradicted",
    "window_ignored",
)
_RECANTED = ("judged_twice", "closed_too_early")


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
    """Reads everything again and changes nothing; what it has to remember of many requests the database keeps."""

    def __init__(self, settings: Settings, store: Engine, log_id: int, ids: RequestIds, reader: RecordReader) -> None:
        self._settings = settings
        self._store = store
        self._log_id = log_id
        self._ids = ids
        self._reader = reader

    def verify(self, history: Iterable[ClientAnswer] | None = None, coupon_id: int | None = None) -> list[Check]:
        """Every check, for all coupons or one; the history's where there is one. Raises Unavailable."""
        with engine.in_transaction(self._store) as tx:
            tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            tx.execute(text("SET LOCAL statement_timeout = 0"))
            tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))  # it reads the log meanwhile
            queries.create_temporary_tables(tx)
            walked = self._walk(tx, coupon_id)
            checks = self._from_rows(tx, coupon_id, walked.pop("window_ignored"))
            checks.append(Check("P4", "nothing lost in the log", walked, ("lost", "phantom", "contradicted")))
            if history is not None:
                told = self._answers(tx, history, coupon_id)
                checks.append(Check("P5", "the answers hold", told, ("lost", "contradicted", "phantom")))
        return sorted(checks, key=lambda check: check.promise)

    def _from_rows(self, tx: Connection, coupon_id: int | None, window_ignored: int) -> list[Check]:
        ruled = self._judge(tx, coupon_id) | {"coupons_with_gaps": queries.coupons_with_sequence_gaps(tx, coupon_id)}
        ruled["window_ignored"] = window_ignored
        recanted = {name: ruled.pop(name) for name in _RECANTED}
        kept = queries.state_counts(tx, coupon_id)
        return [
            Check("P1", "never over-issued", queries.over_issued(tx, coupon_id), ("over_issued", "miscounted")),
            Check("P2", "one per user", queries.duplicate_counts(tx, coupon_id), _TWICE),
            Check("P3", "in order", ruled, _DISORDER),
            Check("P4", "what has not ended is kept", kept, ("dead_without_letter", "held_without_retry")),
            Check("P5", "nothing accepted was judged again", recanted, _RECANTED),
        ]

    def _judge(self, tx: Connection, coupon_id: int | None) -> dict[str, int]:
        """Rules on each coupon's requests, one coupon after the other."""
        found: Counter[str] = Counter(dict.fromkeys((*_DISORDER, *_RECANTED), 0))
        found.update(refused_sold_out=0, coupons_with_retries=0)
        for number, ruled in groupby(queries.decided_requests(tx, coupon_id), key=lambda one: one.coupon_id):
            judge = OrderChecker(queries.coupon_versions(tx, number)).check(self._counted(ruled, found))
            found.update(judge.violations)
            found.update(out_of_order=judge.out_of_order, coupons_with_retries=int(judge.had_retries))
        return dict(found)

    def _counted(self, ruled: Iterable[CouponRequest], found: Counter[str]) -> Iterator[DecidedRequest]:
        for _, request_id, line in ruled:
            claim = self._ids.decode(request_id)
            found["refused_sold_out"] += line.code is ReasonCode.SOLD_OUT
            yield line._replace(accepted=claim is not None and not claim.foreign)

    def _walk(self, tx: Connection, coupon_id: int | None) -> dict[str, int]:
        """Walks the log and the rows side by side: each record that was passed has its row, and no row lacks one."""
        found: Counter[str] = Counter(dict.fromkeys(_WALKED, 0))
        positions = checkpoints.current_checkpoints(tx, self._log_id)
        count = self._settings.topic_partitions
        walk = LogAudit(self._settings, tx, self._log_id, self._ids, self._reader, coupon_id)
        for partition in range(count) if coupon_id is None else [partition_of(coupon_id, count)]:
            passed = positions[partition].next_offset if partition in positions else 0
            found.update(walk.audit_partition(partition, passed))
        return dict(found)

    def _answers(self, tx: Connection, history: Iterable[ClientAnswer], coupon_id: int | None) -> dict[str, int]:
        """Each receipt is in the log, each `duplicate` names the user's own first request, and no row came unasked."""
        meant = (told for told in history if coupon_id in (None, told.coupon_id))
        queries.insert_client_answers(
            tx, ((told.coupon_id, told.user_id, told.outcome, told.request_id) for told in meant)
        )
        found: Counter[str] = Counter(
            accepted=0, issued=0, refused=0, dead=0, in_flight=0, unknown=0, lost=0, contradicted=0, phantom=0
        )
        for heard in queries.answered_requests(tx):
            found[heard.outcome] += heard.outcome != "refused"
            if heard.request_id and (verdict := self._verdict(heard, heard.request_id)):
                found[verdict] += 1
        claims = (self._ids.decode(request_id) for request_id in queries.unrequested_ids(tx, self._log_id, coupon_id))
        found["phantom"] = sum(1 for claim in claims if claim and not claim.foreign)
        return dict(found)

    def _verdict(self, heard: AnsweredRequest, request_id: str) -> str | None:
        claim = self._ids.decode(request_id)
        if claim is None or claim[:2] != (heard.coupon_id, heard.user_id):
            return "contradicted"
        if heard.state is None and not heard.undecided:
            return "lost" if heard.outcome == "accepted" else "contradicted"
        if heard.outcome == "refused":
            return None
        return heard.state if heard.state in FINAL_STATES else "in_flight"
