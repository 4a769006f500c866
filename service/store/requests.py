"""Queries on requests: earlier requests of a user, decisions, and look-ups."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from service.domain.decide import Outcome, PriorRequests
from service.domain.request import FINAL_STATES, Decision, ListPosition, LogPosition, ReasonCode, Request, RequestState
from service.store.arrays import AT_LOG_POSITION, LOG_POSITION_ARRAYS, bigints, log_position_arrays
from service.store.outbox import OutboxEntry
from service.store.tables import LIVE_ROWS
from service.timestamps import to_datetime, to_milliseconds

_ROWS_PER_FETCH = 2_000
_ASKED = "unnest(CAST(:coupons AS bigint[]), CAST(:users AS bigint[])) AS asked(coupon, uid)"
_OF_PAIR = "FROM requests WHERE coupon_id = coupon AND user_id = uid AND"
PRIOR = text(
    f"SELECT coupon_id, user_id, request_id, live FROM {_ASKED}, LATERAL ("
    f"SELECT coupon_id, user_id, request_id, true AS live {_OF_PAIR} {LIVE_ROWS}"
    f" UNION ALL SELECT coupon_id, user_id, request_id, false {_OF_PAIR} NOT ({LIVE_ROWS})) AS had"
)
#: ORDER BY, so that the index is read whatever the planner thinks of the table
WITH_ENDED = text(
    "SELECT id FROM unnest(CAST(:ids AS bigint[])) AS asked(id), LATERAL ("
    f"SELECT FROM requests WHERE coupon_id = id AND NOT ({LIVE_ROWS}) ORDER BY user_id LIMIT 1) AS ended"
)


def prior_requests(tx: Connection, pairs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], PriorRequests]:
    """Return the earlier requests of each (coupon_id, user_id).

    Call it after the coupons are locked: the statement needs a snapshot newer than the lock.
    """
    return prior_of_rows(tx.execute(PRIOR, _pairs(pairs)))


def prior_of_rows(rows: Iterable[Any]) -> dict[tuple[int, int], PriorRequests]:
    """Return the earlier requests in the rows of PRIOR: coupon id, user id, request id, whether it is live."""
    found: dict[tuple[int, int], PriorRequests] = {}
    for coupon_id, user_id, request_id, live in rows:
        prior = found.setdefault((coupon_id, user_id), PriorRequests())
        prior.request_ids.add(request_id)
        prior.live = prior.live or live
    return found


def iterate_request_ids(tx: Connection) -> Iterator[str]:
    """Yield the request id of every request, of all logs."""
    rows = tx.execute(text("SELECT request_id FROM requests"), execution_options={"yield_per": _ROWS_PER_FETCH})
    return iter(rows.scalars())


_LIVE_IDS = text(
    f"SELECT coupon_id, user_id, request_id FROM {_ASKED}"
    f" JOIN requests ON coupon_id = coupon AND user_id = uid AND {LIVE_ROWS}"
)


def live_request_ids(tx: Connection, pairs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """Return the request id of the live request of each (coupon_id, user_id) that has one."""
    rows = tx.execute(_LIVE_IDS, _pairs(pairs))
    return {(coupon_id, user_id): request_id for coupon_id, user_id, request_id in rows}


def _pairs(pairs: Iterable[tuple[int, int]]) -> dict[str, "array[int]"]:
    """Return the pairs as two arrays."""
    pairs = list(pairs)
    return {"coupons": bigints([coupon for coupon, _ in pairs]), "users": bigints([user for _, user in pairs])}


# One INSERT instead of COPY: while PostgreSQL waits for the rows of a COPY, none of its timeouts ends the transaction.
# If the process freezes at that moment, its locks are not released.
INSERT = text(
    'INSERT INTO requests (log_id, partition, "offset", coupon_id, user_id, request_id, state, code, sequence,'
    " attempts, requested_at, decided_at)"
    ' SELECT :log, partition, "offset", coupon_id, user_id, request_id, state, code, nullif(sequence, 0),'
    " (state <> 'standby')::int,"
    " timestamptz 'epoch' + requested_at_ms * interval '1 millisecond',"
    " CASE WHEN state = ANY(:finals) THEN CAST(:decided_at AS timestamptz) END"
    " FROM unnest(CAST(:partitions AS bigint[]), CAST(:offsets AS bigint[]), CAST(:coupons AS bigint[]),"
    "  CAST(:users AS bigint[]), string_to_array(:ids, ','), string_to_array(:states, ','),"
    "  string_to_array(:codes, ',', ''), CAST(:sequences AS bigint[]), CAST(:requested AS bigint[]))"
    '  AS new(partition, "offset", coupon_id, user_id, request_id, state, code, sequence, requested_at_ms)'
)


InsertColumns = Mapping[str, "array[int] | str"]


def insert(tx: Connection, log_id: int, new: InsertColumns, decided_at: datetime) -> None:
    """Insert decided requests; a trigger updates the counters of their coupons."""
    if new["states"]:
        tx.execute(INSERT, {"log": log_id, "decided_at": decided_at, "finals": FINALS, **new})


def insert_columns(rows: Sequence[Outcome]) -> InsertColumns:
    """Return the values for insert.

    Text columns are passed as one comma-separated string, which is cheaper than an array; no value contains a comma.
    """
    asked = [row.request for row in rows]
    return {
        "partitions": bigints([request.log_position.partition for request in asked]),
        "offsets": bigints([request.log_position.offset for request in asked]),
        "coupons": bigints([request.coupon_id for request in asked]),
        "users": bigints([request.user_id for request in asked]),
        "ids": ",".join([request.request_id for request in asked]),
        "states": ",".join([row.state for row in rows]),
        "codes": ",".join([row.code or "" for row in rows]),
        "sequences": bigints([row.sequence or 0 for row in rows]),
        "requested": bigints([request.requested_at_ms for request in asked]),
    }


FINALS = [state.value for state in FINAL_STATES]


_UPDATE = text(
    "UPDATE requests SET state = new.state, code = new.code, sequence = new.sequence,"
    " attempts = attempts + :spent, decided_at = CASE WHEN new.final THEN CAST(:decided_at AS timestamptz) END"
    f" FROM unnest({LOG_POSITION_ARRAYS}, CAST(:states AS text[]),"
    "  CAST(:codes AS text[]), CAST(:sequences AS bigint[]), CAST(:finals AS bool[]))"
    f"  AS new(l, p, o, state, code, sequence, final) WHERE {AT_LOG_POSITION}"
)


def update(
    tx: Connection, log_id: int, outcomes: Sequence[Outcome], decided_at: datetime, *, attempts_added: int
) -> None:
    """Update requests that have rows already, and add attempts to each."""
    if not outcomes:
        return
    tx.execute(
        _UPDATE,
        {
            "spent": attempts_added,
            "decided_at": decided_at,
            **log_position_arrays(log_id, [outcome.request.log_position for outcome in outcomes]),
            "states": [outcome.state.value for outcome in outcomes],
            "codes": [outcome.code and outcome.code.value for outcome in outcomes],
            "sequences": [outcome.sequence for outcome in outcomes],
            "finals": [outcome.state in FINAL_STATES for outcome in outcomes],
        },
    )


class StoredRequest(NamedTuple):
    """A row of requests."""

    request: Request
    state: RequestState
    code: ReasonCode | None
    sequence: int | None
    attempts: int
    decided_at_ms: int | None


_ROW = (
    'SELECT partition, "offset", coupon_id, user_id, request_id, requested_at, state, code, sequence, attempts,'
    f" decided_at {_OF_PAIR} request_id = named AND"
)
_FIND = text(
    "SELECT had.* FROM unnest(CAST(:coupons AS bigint[]), CAST(:users AS bigint[]), string_to_array(:ids, ','))"
    f" AS asked(coupon, uid, named), LATERAL ({_ROW} {LIVE_ROWS} UNION ALL {_ROW} NOT ({LIVE_ROWS})) AS had"
)


def find_many(tx: Connection, asked: Sequence[tuple[int, int, str]]) -> dict[str, StoredRequest]:
    """Return the rows of requests (coupon id, user id, request id) by request id.

    A request that is undecided or was never accepted has none.
    """
    values = {**_pairs((coupon, user) for coupon, user, _ in asked), "ids": ",".join([name for _, _, name in asked])}
    return {row.request_id: _stored(*row) for row in tx.execute(_FIND, values)} if asked else {}


def _stored(*row: Any) -> StoredRequest:
    *columns, state, code, sequence, attempts, decided_at = row
    return StoredRequest(
        request_of(*columns),
        _STATES[state],
        code and ReasonCode(code),
        sequence,
        attempts,
        decided_at and to_milliseconds(decided_at),
    )


class ListedRequest(NamedTuple):
    """A row of requests in the list of its user."""

    stored: StoredRequest
    log_id: int
    coupon_name: str


# No index begins with the user: it would cost each insert more than the row itself. So the user is looked for in every
# coupon, by the indexes that decisions need. See docs/decisions/0022.
_OF_USER_AND_COUPON = (
    'SELECT log_id, partition, "offset", coupon_id, user_id, request_id, requested_at, state, code, sequence,'
    " attempts, decided_at FROM requests WHERE coupon_id = coupons.id AND user_id = :uid AND"
)
_OF_USER = text(
    "SELECT name, had.* FROM coupons,"
    f" LATERAL ({_OF_USER_AND_COUPON} {LIVE_ROWS} UNION ALL {_OF_USER_AND_COUPON} NOT ({LIVE_ROWS})) AS had"
    ' WHERE (requested_at, log_id, partition, "offset")'
    "  < (timestamptz 'epoch' + CAST(:requested_at_ms AS bigint) * interval '1 millisecond', :log_id, :partition,"
    "   CAST(:offset AS bigint))"
    ' ORDER BY requested_at DESC, log_id DESC, partition DESC, "offset" DESC LIMIT :limit'
)


def page_of_user(tx: Connection, user_id: int, after: ListPosition, limit: int) -> list[ListedRequest]:
    """Return up to `limit` decided requests of a user that follow a position in the list, newest first.

    It takes some microseconds for each coupon, whether the user has requested it or not.
    """
    rows = tx.execute(_OF_USER, {"uid": user_id, "limit": limit, **after._asdict()})
    return [ListedRequest(_stored(*row), log_id, name) for name, log_id, *row in rows]


_DECIDED = text(
    "SELECT request_id, coupon_id, user_id, state, code, sequence FROM requests"
    " WHERE log_id = :log AND partition = :partition AND decided_at = :decided_at"
    ' AND "offset" BETWEEN :first AND :last ORDER BY "offset"'
)


def decisions_of(tx: Connection, entries: Iterable[OutboxEntry]) -> list[Decision]:
    """Return the final decisions that outbox entries refer to: those of their offsets with exactly their decided_at.

    They are in the order of the entries, and in offset order within each.
    """
    decisions: list[Decision] = []
    for entry in entries:
        where = {"log": entry.log_id, **entry.range._asdict(), "decided_at": entry.decided_at}
        rounded = to_datetime(to_milliseconds(entry.decided_at))
        decisions += [
            Decision(request_id, coupon_id, user_id, _STATES[state], code and ReasonCode(code), sequence, rounded)
            for request_id, coupon_id, user_id, state, code, sequence in tx.execute(_DECIDED, where).all()
        ]
    return decisions


_SEATS = "SELECT user_id, request_id FROM requests WHERE coupon_id = :coupon AND"


def live_seats(tx: Connection, coupon_id: int) -> list[tuple[int, str]]:
    """Return user id and request id of every live request of the coupon."""
    rows = tx.execute(text(f"{_SEATS} {LIVE_ROWS}"), {"coupon": coupon_id}).all()
    return [(user_id, request_id) for user_id, request_id in rows]


def released_seats(tx: Connection, coupon_id: int) -> list[tuple[int, str]]:
    """Return user id and request id of every ended request of the coupon whose seat the gate released."""
    rows = tx.execute(text(f"{_SEATS} NOT ({LIVE_ROWS}) AND code <> 'sold_out'"), {"coupon": coupon_id}).all()
    return [(user_id, request_id) for user_id, request_id in rows]


_STATES = {state.value: state for state in RequestState}


def request_of(
    partition: int, offset: int, coupon_id: int, user_id: int, request_id: str, requested_at: datetime
) -> Request:
    """Return the request of these columns, with substitutes for what the table does not store.

    `appended_at_ms` is the requested time, and `accepted` is always True.
    """
    at_ms = to_milliseconds(requested_at)
    return Request(LogPosition(partition, offset), coupon_id, user_id, request_id, at_ms, at_ms, accepted=True)
