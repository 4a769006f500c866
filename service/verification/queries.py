"""Queries of the proof. They count rows themselves, in bounded memory, and rely on no counter, index or constraint."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection, text

from service.domain.coupon import Override
from service.domain.request import ReasonCode, Request, RequestState
from service.store.engine import driver_connection
from service.store.tables import LIVE_ROWS
from service.timestamps import to_milliseconds
from service.verification.order import CouponVersion, DecidedRequest

_IN_BATCHES = {"yield_per": 2000}
#: one coupon's rows, or all
_SELECTED = "coupon_id = coalesce(CAST(:coupon AS bigint), coupon_id)"


class AuditRow(NamedTuple):
    """The row of one record of the log."""

    offset: int
    coupon_id: int | None
    user_id: int | None
    request_id: str | None
    state: str
    code: str | None
    #: an operator replayed its dead letter
    replayed: bool


def _has_dead_letter(name: str, such: str = "true") -> str:
    """Return the SQL condition that a request has a dead letter for which the condition `such` is true."""
    return (
        f"EXISTS (SELECT FROM dead_letters AS letter WHERE letter.log_id = {name}.log_id"
        f' AND letter.partition = {name}.partition AND letter."offset" = {name}."offset" AND {such})'
    )


_REPLAYED = _has_dead_letter(
    "requests",
    "EXISTS (SELECT FROM dead_letter_actions AS act WHERE act.dead_letter_id = letter.id AND act.action = 'replayed')",
)
_ROWS = text(
    f'SELECT "offset", coupon_id, user_id, request_id, state, code, {_REPLAYED} FROM requests'
    f" WHERE log_id = :log AND partition = :partition AND {_SELECTED}"
    " UNION ALL "
    "SELECT \"offset\", NULL, NULL, NULL, 'poison', 'poison', false FROM dead_letters"
    " WHERE log_id = :log AND partition = :partition AND code = 'poison' AND request_id IS NULL"
    " AND CAST(:coupon AS bigint) IS NULL"
    " ORDER BY 1"
)


_DECIDED_EARLIER = " UNION ALL ".join(
    f"SELECT FROM requests JOIN offsets USING (log_id, partition) WHERE coupon_id = :coupon AND user_id = :uid"
    f" AND request_id = :request_id AND {condition} AND (log_id = :log AND partition = :partition"
    '  AND "offset" < :offset OR log_id < :log AND closed AND "offset" < next_offset)'
    for condition in (LIVE_ROWS, f"NOT ({LIVE_ROWS})")
)


def is_decided_earlier(tx: Connection, log_id: int, request: Request) -> bool:
    """Return whether the request has a row of an earlier record: of this log, or of a log before it was closed."""
    values = {
        "coupon": request.coupon_id,
        "uid": request.user_id,
        "request_id": request.request_id,
        "log": log_id,
        "partition": request.log_position.partition,
        "offset": request.log_position.offset,
    }
    return bool(tx.execute(text(f"SELECT EXISTS ({_DECIDED_EARLIER})"), values).scalar_one())


def checkpoints_moved_by_hand(tx: Connection, log_id: int) -> dict[int, int]:
    """Return by how many offsets something else than this service moved a checkpoint, by partition."""
    rows = tx.execute(
        text(
            "SELECT partition, next_offset - advanced_to AS moved FROM offsets"
            " WHERE log_id = :log AND next_offset <> advanced_to ORDER BY partition"
        ),
        {"log": log_id},
    )
    return {row.partition: row.moved for row in rows}


def audit_rows(tx: Connection, log_id: int, partition: int, coupon_id: int | None) -> Iterator[AuditRow]:
    """Yield the row of each record of the partition in offset order: of one coupon, or of all with the poison."""
    values = {"log": log_id, "partition": partition, "coupon": coupon_id}
    with tx.execute(_ROWS, values, execution_options=_IN_BATCHES) as rows:
        yield from (AuditRow(*row) for row in rows)


_LINES = text(
    'SELECT coupon_id, log_id, "offset", state, code, sequence, attempts, decided_at, request_id,'
    f" {_REPLAYED} AS replayed"
    f' FROM requests WHERE {_SELECTED} ORDER BY coupon_id, log_id, "offset"'
)


class CouponRequest(NamedTuple):
    """A decided request with its coupon and its id."""

    coupon_id: int
    request_id: str
    request: DecidedRequest


def decided_requests(tx: Connection, coupon_id: int | None) -> Iterator[CouponRequest]:
    """Yield every request by coupon and in order. `accepted` is left False: only the request id proves it."""
    with tx.execute(_LINES, {"coupon": coupon_id}, execution_options=_IN_BATCHES) as rows:
        for row in rows:
            at = (row.log_id, row.offset)
            code, ended = row.code and ReasonCode(row.code), row.decided_at and to_milliseconds(row.decided_at)
            line = DecidedRequest(
                at, RequestState(row.state), code, row.sequence, row.attempts, ended, row.replayed, accepted=False
            )
            yield CouponRequest(row.coupon_id, row.request_id, line)


def coupon_versions(tx: Connection, coupon_id: int) -> list[CouponVersion]:
    """Return the recorded values of a coupon, oldest first."""
    found = tx.execute(
        text("SELECT * FROM coupon_changes WHERE coupon_id = :coupon ORDER BY version"), {"coupon": coupon_id}
    )
    return [
        CouponVersion(
            None if row.first_offset is None else (row.log_id, row.first_offset),
            row.quantity,
            Override(row.override),
            row.opens_at and to_milliseconds(row.opens_at),
            row.closes_at and to_milliseconds(row.closes_at),
            to_milliseconds(row.changed_at),
        )
        for row in found
    ]


def _numbers(tx: Connection, query: str, **values: object) -> dict[str, int]:
    return dict(tx.execute(text(query), values).mappings().one())


def over_issued(tx: Connection, coupon_id: int | None) -> dict[str, int]:
    """Count coupons with more issued and held than their quantity, and those whose counters differ from their rows."""
    return _numbers(
        tx,
        f"""
        SELECT count(*) AS coupons, coalesce(sum(counted.issued), 0)::bigint AS issued,
               count(*) FILTER (WHERE coalesce(counted.issued + counted.held, 0) > coupons.quantity) AS over_issued,
               count(*) FILTER (WHERE (coalesce(counted.issued, 0), coalesce(counted.held, 0),
                                       coalesce(counted.standby, 0))
                                   <> (coupons.issued, coupons.held, coupons.standby)) AS miscounted
        FROM coupons LEFT JOIN (
            SELECT coupon_id, count(*) FILTER (WHERE state = 'issued') AS issued,
                   count(*) FILTER (WHERE state = 'retrying') AS held,
                   count(*) FILTER (WHERE state = 'standby') AS standby
            FROM requests WHERE {_SELECTED} GROUP BY coupon_id) AS counted ON counted.coupon_id = coupons.id
        WHERE coupons.id = coalesce(CAST(:coupon AS bigint), coupons.id)
        """,
        coupon=coupon_id,
    )


#: a request refused with one of these never blocked another one, unless it was dead before
_NEVER_LIVE = "'duplicate', 'closed', 'not_open', 'paused', 'unknown_coupon', 'foreign'"


def duplicate_counts(tx: Connection, coupon_id: int | None) -> dict[str, int]:
    """Count users with several live requests of a coupon, ids with several rows, and duplicates without a first."""
    return _numbers(
        tx,
        f"""
        SELECT (SELECT count(*) FROM (SELECT FROM requests WHERE {_SELECTED}
                AND state IN ('issued', 'retrying', 'standby')
                GROUP BY coupon_id, user_id HAVING count(*) > 1) AS users) AS users_with_two,
               (SELECT count(*) FROM (SELECT FROM requests WHERE {_SELECTED}
                GROUP BY log_id, coupon_id, user_id, request_id HAVING count(*) > 1) AS ids) AS request_ids_with_two,
               (SELECT count(*) FROM requests AS later WHERE {_SELECTED} AND code = 'duplicate'
                AND NOT EXISTS (
                   SELECT FROM requests AS first WHERE first.coupon_id = later.coupon_id
                   AND first.user_id = later.user_id
                   AND (first.log_id, first."offset") < (later.log_id, later."offset")
                   AND (coalesce(first.code, '') NOT IN ({_NEVER_LIVE}) OR {_has_dead_letter("first")}))
                AND NOT {_has_dead_letter("later")}) AS duplicates_without_first
        """,
        coupon=coupon_id,
    )


def coupons_with_sequence_gaps(tx: Connection, coupon_id: int | None) -> int:
    """Count coupons whose sequences are not 1 to n, each once."""
    found = _numbers(
        tx,
        f"""
        SELECT count(*) AS coupons FROM (
            SELECT FROM requests WHERE {_SELECTED} AND state = 'issued' GROUP BY coupon_id
            HAVING min(sequence) <> 1 OR max(sequence) <> count(*) OR count(DISTINCT sequence) <> count(*)) AS gaps
        """,
        coupon=coupon_id,
    )
    return found["coupons"]


def state_counts(tx: Connection, coupon_id: int | None) -> dict[str, int]:
    """Count requests by state, dead ones without a dead letter, and held ones without a row in retries."""
    return _numbers(
        tx,
        f"""
        SELECT count(*) FILTER (WHERE state = 'issued') AS issued, count(*) FILTER (WHERE state = 'refused') AS refused,
               count(*) FILTER (WHERE state = 'dead') AS dead,
               count(*) FILTER (WHERE state IN ('retrying', 'standby')) AS retrying_or_standby,
               count(*) FILTER (WHERE state = 'dead' AND code <> 'lost'
                AND NOT {_has_dead_letter("requests", "letter.state <> 'replayed'")}) AS dead_without_dead_letter,
               count(*) FILTER (WHERE (state IN ('retrying', 'standby')) <> EXISTS (
                   SELECT FROM retries WHERE retries.log_id = requests.log_id
                   AND retries.partition = requests.partition AND retries."offset" = requests."offset")
               ) AS held_without_retry
        FROM requests WHERE {_SELECTED}
        """,
        coupon=coupon_id,
    )


def create_temporary_tables(tx: Connection) -> None:
    """Create tables, until the end of the transaction, for client answers and undecided requests."""
    tx.execute(
        text(
            "CREATE TEMPORARY TABLE answers (coupon_id bigint, user_id bigint, outcome text, request_id text)"
            " ON COMMIT DROP"
        )
    )
    tx.execute(text("CREATE TEMPORARY TABLE undecided (request_id text) ON COMMIT DROP"))


def insert_undecided(tx: Connection, request_ids: Iterable[str]) -> None:
    """Insert the ids of requests in the log that are not decided."""
    with driver_connection(tx).cursor() as cursor, cursor.copy("COPY undecided FROM STDIN") as copy:
        for request_id in request_ids:
            copy.write_row((request_id,))


AnswerValues = tuple[int, int, str, str | None]


def insert_client_answers(tx: Connection, answers: Iterable[AnswerValues]) -> None:
    """Insert client answers: coupon, user, outcome, request id."""
    with driver_connection(tx).cursor() as cursor, cursor.copy("COPY answers FROM STDIN") as copy:
        for answer in answers:
            copy.write_row(answer)
    tx.execute(text("CREATE INDEX ON answers (coupon_id, user_id)"))
    tx.execute(text("ANALYZE answers"))
    tx.execute(text("ANALYZE undecided"))


class AnsweredRequest(NamedTuple):
    """A client's answer and the state of the request that it names."""

    coupon_id: int
    user_id: int
    outcome: str
    request_id: str | None
    state: str | None
    undecided: bool


def answered_requests(tx: Connection) -> Iterator[AnsweredRequest]:
    """Yield every client answer with the row of the request that it names."""
    query = text(
        "SELECT answers.*, requests.state, undecided.request_id IS NOT NULL FROM answers"
        " LEFT JOIN requests ON answers.request_id = requests.request_id AND answers.coupon_id = requests.coupon_id"
        "  AND answers.user_id = requests.user_id"
        " LEFT JOIN (SELECT DISTINCT request_id FROM undecided) AS undecided"
        "  ON undecided.request_id = answers.request_id"
    )
    return (AnsweredRequest(*row) for row in tx.execute(query, execution_options=_IN_BATCHES))


def unrequested_ids(tx: Connection, log_id: int, coupon_id: int | None) -> Iterator[str]:
    """Yield the ids of requests of this log that no client of the history sent."""
    query = text(
        f"SELECT request_id FROM requests WHERE log_id = :log AND {_SELECTED} AND NOT EXISTS ("
        " SELECT FROM answers WHERE outcome <> 'refused' AND answers.coupon_id = requests.coupon_id"
        " AND answers.user_id = requests.user_id)"
    )
    return (row[0] for row in tx.execute(query, {"log": log_id, "coupon": coupon_id}, execution_options=_IN_BATCHES))
