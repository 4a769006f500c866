"""Queries of the proof: they count rows themselves, a few at a time, and believe no counter, index or constraint."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection, text

from service.domain.coupon import Override
from service.domain.request import ReasonCode, RequestState
from service.store.engine import driver_connection, to_milliseconds
from service.verification.order import CouponVersion, DecidedRequest

_FEW = {"yield_per": 2000}
#: one coupon's rows, or all
_MEANT = "coupon_id = coalesce(CAST(:coupon AS bigint), coupon_id)"


class AuditRow(NamedTuple):
    """What the database has of one record of the log."""

    offset: int
    coupon_id: int | None
    user_id: int | None
    request_id: str | None
    state: str
    code: str | None
    #: an operator brought it back from the dead
    replayed: bool


def _has_letter(name: str, such: str = "true") -> str:
    """Whether the request of the table `name` has a dead letter, and one of which `such` holds."""
    return (
        f"EXISTS (SELECT FROM dead_letters AS letter WHERE letter.log_id = {name}.log_id"
        f' AND letter.partition = {name}.partition AND letter."offset" = {name}."offset" AND {such})'
    )


_REPLAYED = _has_letter(
    "requests",
    "EXISTS (SELECT FROM dead_letter_actions AS act WHERE act.dead_letter_id = letter.id AND act.action = 'replayed')",
)
_ROWS = text(
    f'SELECT "offset", coupon_id, user_id, request_id, state, code, {_REPLAYED} FROM requests'
    f" WHERE log_id = :log AND partition = :partition AND {_MEANT}"
    " UNION ALL "
    "SELECT \"offset\", NULL, NULL, NULL, 'poison', 'poison', false FROM dead_letters"
    " WHERE log_id = :log AND partition = :partition AND code = 'poison' AND request_id IS NULL"
    " AND CAST(:coupon AS bigint) IS NULL"
    " ORDER BY 1"
)


def audit_rows(tx: Connection, log_id: int, partition: int, coupon_id: int | None) -> Iterator[AuditRow]:
    """Every row that stands for a record of the partition, in offset order; of one coupon, or all and the poison."""
    values = {"log": log_id, "partition": partition, "coupon": coupon_id}
    return (AuditRow(*row) for row in tx.execute(_ROWS, values, execution_options=_FEW))


_LINES = text(
    'SELECT coupon_id, log_id, "offset", state, code, sequence, attempts, decided_at, request_id,'
    f" {_REPLAYED} AS replayed"
    f' FROM requests WHERE {_MEANT} ORDER BY coupon_id, log_id, "offset"'
)


class CouponRequest(NamedTuple):
    """What became of one request, and of which coupon it is."""

    coupon_id: int
    request_id: str
    request: DecidedRequest


def decided_requests(tx: Connection, coupon_id: int | None) -> Iterator[CouponRequest]:
    """Every request by coupon and in order; whether it was accepted, its id tells, not the database."""
    for row in tx.execute(_LINES, {"coupon": coupon_id}, execution_options=_FEW):
        at = (row.log_id, row.offset)
        code, ended = row.code and ReasonCode(row.code), row.decided_at and to_milliseconds(row.decided_at)
        line = DecidedRequest(
            at, RequestState(row.state), code, row.sequence, row.attempts, ended, row.replayed, accepted=False
        )
        yield CouponRequest(row.coupon_id, row.request_id, line)


def coupon_versions(tx: Connection, coupon_id: int) -> list[CouponVersion]:
    """A coupon's recorded values, oldest first."""
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
    """Coupons with more issued or held than their quantity, or whose counters differ from their rows."""
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
            FROM requests WHERE {_MEANT} GROUP BY coupon_id) AS counted ON counted.coupon_id = coupons.id
        WHERE coupons.id = coalesce(CAST(:coupon AS bigint), coupons.id)
        """,
        coupon=coupon_id,
    )


#: refused with one of these, a request has never been in anybody's way, unless it was dead in between
_NEVER_LIVE = "'duplicate', 'closed', 'not_open', 'paused', 'unknown_coupon'"


def duplicate_counts(tx: Connection, coupon_id: int | None) -> dict[str, int]:
    """Users with more than one live request for a coupon, ids with more than one row, duplicates of nothing."""
    return _numbers(
        tx,
        f"""
        SELECT (SELECT count(*) FROM (SELECT FROM requests WHERE {_MEANT}
                AND state IN ('issued', 'retrying', 'standby')
                GROUP BY coupon_id, user_id HAVING count(*) > 1) AS users) AS users_with_two,
               (SELECT count(*) FROM (SELECT FROM requests WHERE {_MEANT}
                GROUP BY log_id, coupon_id, user_id, request_id HAVING count(*) > 1) AS ids) AS request_ids_with_two,
               (SELECT count(*) FROM requests AS later WHERE {_MEANT} AND code = 'duplicate'
                AND NOT EXISTS (
                   SELECT FROM requests AS first WHERE first.coupon_id = later.coupon_id
                   AND first.user_id = later.user_id
                   AND (first.log_id, first."offset") < (later.log_id, later."offset")
                   AND (coalesce(first.code, '') NOT IN ({_NEVER_LIVE}) OR {_has_letter("first")}))
                AND NOT {_has_letter("later")}) AS duplicates_of_nothing
        """,
        coupon=coupon_id,
    )


def coupons_with_sequence_gaps(tx: Connection, coupon_id: int | None) -> int:
    """Coupons whose sequences are not 1 to n, each once."""
    found = _numbers(
        tx,
        f"""
        SELECT count(*) AS coupons FROM (
            SELECT FROM requests WHERE {_MEANT} AND state = 'issued' GROUP BY coupon_id
            HAVING min(sequence) <> 1 OR max(sequence) <> count(*) OR count(DISTINCT sequence) <> count(*)) AS gaps
        """,
        coupon=coupon_id,
    )
    return found["coupons"]


def state_counts(tx: Connection, coupon_id: int | None) -> dict[str, int]:
    """Requests by where they stand; dead ones that no dead letter keeps, and held ones that nothing will try again."""
    return _numbers(
        tx,
        f"""
        SELECT count(*) FILTER (WHERE state = 'issued') AS issued, count(*) FILTER (WHERE state = 'refused') AS refused,
               count(*) FILTER (WHERE state = 'dead') AS dead,
               count(*) FILTER (WHERE state IN ('retrying', 'standby')) AS retrying_or_standby,
               count(*) FILTER (WHERE state = 'dead' AND NOT {_has_letter("requests", "letter.state <> 'replayed'")}
               ) AS dead_without_letter,
               count(*) FILTER (WHERE (state IN ('retrying', 'standby')) <> EXISTS (
                   SELECT FROM retries WHERE retries.log_id = requests.log_id
                   AND retries.partition = requests.partition AND retries."offset" = requests."offset")
               ) AS held_without_retry
        FROM requests WHERE {_MEANT}
        """,
        coupon=coupon_id,
    )


def create_temporary_tables(tx: Connection) -> None:
    """Makes room, for the length of the transaction, for what clients were told and what is undecided."""
    tx.execute(
        text(
            "CREATE TEMPORARY TABLE told (coupon_id bigint, user_id bigint, outcome text, request_id text)"
            " ON COMMIT DROP"
        )
    )
    tx.execute(text("CREATE TEMPORARY TABLE undecided (request_id text) ON COMMIT DROP"))


def insert_undecided(tx: Connection, request_ids: Iterable[str]) -> None:
    """Takes in request ids of the log beyond what is decided."""
    with driver_connection(tx).cursor() as cursor, cursor.copy("COPY undecided FROM STDIN") as copy:
        for request_id in request_ids:
            copy.write_row((request_id,))


AnswerValues = tuple[int, int, str, str | None]


def insert_client_answers(tx: Connection, answers: Iterable[AnswerValues]) -> None:
    """Takes in what clients were told: coupon, user, outcome, request id."""
    with driver_connection(tx).cursor() as cursor, cursor.copy("COPY told FROM STDIN") as copy:
        for answer in answers:
            copy.write_row(answer)
    tx.execute(text("CREATE INDEX ON told (coupon_id, user_id)"))
    tx.execute(text("ANALYZE told"))
    tx.execute(text("ANALYZE undecided"))


class AnsweredRequest(NamedTuple):
    """What a client was told, and what became of that request."""

    coupon_id: int
    user_id: int
    outcome: str
    request_id: str | None
    state: str | None
    undecided: bool


def answered_requests(tx: Connection) -> Iterator[AnsweredRequest]:
    """Every answer that clients were told, with the row of the request that it names."""
    query = text(
        "SELECT told.*, requests.state, undecided.request_id IS NOT NULL FROM told"
        " LEFT JOIN requests ON told.request_id = requests.request_id AND told.coupon_id = requests.coupon_id"
        "  AND told.user_id = requests.user_id"
        " LEFT JOIN (SELECT DISTINCT request_id FROM undecided) AS undecided ON undecided.request_id = told.request_id"
    )
    return (AnsweredRequest(*row) for row in tx.execute(query, execution_options=_FEW))


def unrequested_ids(tx: Connection, log_id: int, coupon_id: int | None) -> Iterator[str]:
    """The ids of requests of this log that no client of the history asked for."""
    query = text(
        f"SELECT request_id FROM requests WHERE log_id = :log AND {_MEANT} AND NOT EXISTS ("
        " SELECT FROM told WHERE outcome <> 'refused' AND told.coupon_id = requests.coupon_id"
        " AND told.user_id = requests.user_id)"
    )
    return (row[0] for row in tx.execute(query, {"log": log_id, "coupon": coupon_id}, execution_options=_FEW))
