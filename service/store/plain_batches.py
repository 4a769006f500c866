"""The transaction of a plain batch in two messages: one locks and reads, one writes and commits.

The statements are those of the transactions that send one after another.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any, NamedTuple

from psycopg.errors import UniqueViolation
from sqlalchemy import Engine, text

from service.domain.decide import PriorRequests
from service.domain.decide_plain import CouponCounts, PlainColumns, PlainDecisions
from service.domain.request import RequestState
from service.store import checkpoints, coupons, dead_letters, outbox, requests
from service.store.arrays import bigints, encode_bigints
from service.store.checkpoints import CheckpointAdvance
from service.store.dead_letters import NewDeadLetter
from service.store.outbox import OffsetRange, OutboxKind
from service.store.pipeline import BEGIN, COMMIT, Call, Pipeline, PreparedStatement, Row
from service.store.tables import ONE_LIVE

_LOCK_CHECKPOINTS = PreparedStatement("lock checkpoints", checkpoints.LOCK)
_LOCK_COUPONS = PreparedStatement("lock coupons", coupons.LOCK_COUNTS)
_FIND_ENDED = PreparedStatement("find coupons with ended requests", requests.WITH_ENDED)
_READ_PRIOR = PreparedStatement("read prior requests", requests.PRIOR)
_READ_CLOCK = PreparedStatement("read clock", text("SELECT clock_timestamp()"))
_INSERT_REQUESTS = PreparedStatement("insert requests", requests.INSERT)
_INSERT_DEAD = PreparedStatement("insert dead letters", dead_letters.INSERT)
_ADVANCE = PreparedStatement("advance checkpoints", checkpoints.ADVANCE)
_INSERT_OUTBOX = PreparedStatement("insert outbox", outbox.INSERT)


Prior = dict[tuple[int, int], PriorRequests]
"""The earlier requests of each (coupon id, user id)."""


class HasLiveRow(Exception):
    """A user has a live request for the coupon already; the transaction is rolled back."""


class LockedBatch(NamedTuple):
    """What the first message returns."""

    #: partitions that are at their expected offset, and locked
    partitions: set[int]
    coupons: dict[int, CouponCounts]
    #: coupons that have an ended request
    with_ended: set[int]
    #: of the users who were looked up
    prior: Prior
    #: the database's clock after the locks, as PostgreSQL writes it
    decided_at: str


EncodedColumns = Mapping[str, bytes | str]
"""The columns of a batch that do not depend on its decisions, as parameters of the INSERT."""


def encode(columns: PlainColumns) -> EncodedColumns:
    """Return the columns as parameters."""
    return {
        **_encode_pairs(columns.coupon_ids, columns.user_ids),
        "partitions": encode_bigints(bigints(columns.partitions)),
        "offsets": encode_bigints(bigints(columns.offsets)),
        "ids": ",".join(columns.request_ids),
        "requested": encode_bigints(bigints(columns.requested_at_ms)),
    }


class PlainBatchTransactions:
    """Runs the transactions of plain batches, one at a time, on a connection of their own."""

    def __init__(self, engine: Engine, log_id: int) -> None:
        self._log_id = log_id
        statements = _LOCK_CHECKPOINTS, _LOCK_COUPONS, _FIND_ENDED, _READ_CLOCK, _READ_PRIOR
        self._pipeline = Pipeline(engine, [*statements, _INSERT_REQUESTS, _INSERT_DEAD, _ADVANCE, _INSERT_OUTBOX])

    def transaction(self) -> AbstractContextManager[None]:
        """Roll back at the end of the block unless write_and_commit() was called and receive_commit() returned."""
        return self._pipeline.transaction()

    def lock_and_read(self, expected: Mapping[int, int], columns: PlainColumns, look_up: Collection[int]) -> None:
        """Begin: lock the checkpoints and the coupons, in id order, and find the coupons that have ended requests.

        Earlier requests are read for users of the coupons in `look_up`. It does not wait: receive_locked() returns the
        answer. What is read is read by statements after the locks, so their snapshots are newer than the locks.
        """
        coupon_ids = sorted(set(columns.coupon_ids))
        self._pipeline.send(
            (BEGIN, {}),
            (_LOCK_CHECKPOINTS, checkpoints.lock_values(self._log_id, expected)),
            (_LOCK_COUPONS, {"ids": coupon_ids}),
            (_FIND_ENDED, {"ids": coupon_ids}),
            (_READ_CLOCK, {}),
            *_read_prior(columns, look_up),
        )

    def receive_locked(self) -> LockedBatch:
        """Wait for the answer to lock_and_read()."""
        _, locked, counts, with_ended, ((clock,),), *prior = self._pipeline.receive()
        return LockedBatch(
            {int(partition) for (partition,) in locked},
            {
                coupon_id: CouponCounts(quantity, issued, held, standby, bool(closed))
                for coupon_id, quantity, issued, held, standby, closed in (map(int, row) for row in counts)
            },
            {int(coupon_id) for (coupon_id,) in with_ended},
            _prior(chain.from_iterable(prior)),
            clock.decode(),
        )

    def read_prior(self, columns: PlainColumns, coupon_ids: Collection[int]) -> Prior:
        """Return the earlier requests of the users of some coupons, by a message of its own."""
        self._pipeline.send(*_read_prior(columns, coupon_ids))
        return _prior(chain.from_iterable(self._pipeline.receive()))

    def write_and_commit(
        self,
        columns: EncodedColumns,
        decided: PlainDecisions,
        decided_at: str,
        advances: Sequence[CheckpointAdvance],
        kinds: Iterable[OutboxKind],
        ranges: Sequence[OffsetRange],
        dead: Sequence[NewDeadLetter],
    ) -> None:
        """Write the decisions, the dead letters, the checkpoints and the outbox entries, and commit. It does not wait.

        `columns` are those of the records that are new.
        """
        calls: list[Call] = []
        if decided.sequences:
            decisions = {"log": self._log_id, "decided_at": decided_at, "finals": requests.FINALS, **_decided(decided)}
            calls.append((_INSERT_REQUESTS, {**columns, **decisions}))
        calls += ((_INSERT_DEAD, values) for values in dead_letters.insert_values(self._log_id, dead))
        calls.append((_ADVANCE, checkpoints.advance_values(self._log_id, advances)))
        if kind_names := [kind.value for kind in kinds]:
            calls.append((_INSERT_OUTBOX, outbox.insert_values(self._log_id, kind_names, ranges, decided_at)))
        self._pipeline.send(*calls, (COMMIT, {}))

    def receive_commit(self) -> None:
        """Wait for the commit. After an error of the connection it is not known whether it was made.

        Raises HasLiveRow if a row would be the second live one of its user.
        """
        try:
            self._pipeline.receive()
        except UniqueViolation as error:
            if error.diag.constraint_name == ONE_LIVE:
                raise HasLiveRow from error
            raise


def _encode_pairs(coupon_ids: Sequence[int], user_ids: Sequence[int]) -> dict[str, bytes]:
    return {"coupons": encode_bigints(bigints(coupon_ids)), "users": encode_bigints(bigints(user_ids))}


def _read_prior(columns: PlainColumns, coupon_ids: Collection[int]) -> list[Call]:
    """Return the look-up of the users of some coupons, if there are any.

    Each user is asked once: every question is answered with all rows.
    """
    if not coupon_ids:
        return []
    pairs = zip(columns.coupon_ids, columns.user_ids, strict=True)
    asked = list(dict.fromkeys(pair for pair in pairs if pair[0] in coupon_ids))
    if not asked:
        return []
    return [(_READ_PRIOR, _encode_pairs(*zip(*asked, strict=True)))]


def _prior(rows: Iterable[Row]) -> Prior:
    return requests.prior_of_rows(
        (int(coupon_id), int(user_id), request_id.decode(), live == b"t")
        for coupon_id, user_id, request_id, live in rows
    )


def _decided(decided: PlainDecisions) -> dict[str, Any]:
    """Return the columns that depend on the decisions."""
    count = len(decided.sequences)
    all_issued = 0 not in decided.sequences
    issued, refused = RequestState.ISSUED, RequestState.REFUSED
    states = [issued] * count if all_issued else [issued if sequence else refused for sequence in decided.sequences]
    return {
        "states": ",".join(states),
        "codes": "," * (count - 1) if all_issued else ",".join([code or "" for code in decided.codes]),
        "sequences": bigints(decided.sequences),
    }
