"""PostgreSQL's limit: the rows that the issuer wrote, inserted again into the emptied table as directly as possible.

Before the clock starts, the rows are read back in the format that they are sent in, cut into the issuer's own batches.
Each batch is one durable transaction with the partition's offset and one outbox row; the issuer writes one outbox row
for each 500 records.
"""

import time
from collections.abc import Callable, Sequence
from typing import LiteralString, NamedTuple

import psycopg
from psycopg import sql

from benchmarks.environment import Environment

_CONNECTION = psycopg.Connection
_ISSUER_BATCHES = (
    'SELECT log_id, partition, min("offset"), max("offset"), max(decided_at) FROM requests'
    " GROUP BY log_id, partition, decided_at ORDER BY min(sequence)"
)
_SINGLE_BATCH = _ISSUER_BATCHES.replace("partition, decided_at ORDER", "partition ORDER")
_FROM_BATCH = sql.SQL('FROM requests WHERE log_id = {} AND partition = {} AND "offset" BETWEEN {} AND {}')
_COLUMNS = (
    "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
    " WHERE attrelid = 'requests'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
)
_UPDATE_OFFSET = "UPDATE offsets SET next_offset = next_offset WHERE log_id = %s AND partition = %s"
_INSERT_OUTBOX = (
    "INSERT INTO outbox (kind, log_id, partition, first_offset, last_offset, decided_at)"
    " VALUES ('notify', %s, %s, %s, %s, %s)"
)


class Batch(NamedTuple):
    """Rows of one transaction in both formats: bytes of a binary COPY, and one array for each column."""

    #: log id, partition, first and last offset, time of the decision
    key: tuple[object, ...]
    copy_bytes: bytes
    arrays: Sequence[str]


def measure(environment: Environment, coupon_id: int) -> dict[str, float]:
    """Return rows per second by COPY, by INSERT of arrays, the better of both, and by a single COPY of all rows.

    The table has the same rows afterwards.
    """
    with psycopg.connect(environment.stack.admin_database_url, autocommit=True) as connection:
        columns = connection.execute(_COLUMNS).fetchall()
        names = [name for name, _ in columns]
        batches = _read_batches(connection, _ISSUER_BATCHES, names)
        single = _read_batches(connection, _SINGLE_BATCH, names)
        arrays = sql.SQL(", ").join(sql.SQL(f"%s::{type_name}[]") for _, type_name in columns)
        insert = sql.SQL("INSERT INTO requests SELECT * FROM unnest({})").format(arrays)

        def insert_arrays(tx: "_CONNECTION", batch: Batch) -> None:
            tx.execute(insert, batch.arrays, prepare=True)

        rows = environment.issued_count(coupon_id)
        copy_seconds = _seconds(environment, connection, coupon_id, batches, _copy)
        single_copy_seconds = _seconds(environment, connection, coupon_id, single, _copy)
        array_seconds = _seconds(environment, connection, coupon_id, batches, insert_arrays)
    assert environment.issued_count(coupon_id) == rows, "the limit did not write the same rows"
    return {
        "limit_copy_per_second": rows / copy_seconds,
        "limit_copy_at_once_per_second": rows / single_copy_seconds,
        "limit_arrays_per_second": rows / array_seconds,
        "limit_insert_per_second": rows / min(copy_seconds, array_seconds),
        "records_in_a_transaction": rows / len(batches),
    }


def _read_batches(connection: "_CONNECTION", query: LiteralString, columns: Sequence[str]) -> list[Batch]:
    return [_read_batch(connection, columns, key) for key in connection.execute(query).fetchall()]


def _read_batch(connection: "_CONNECTION", columns: Sequence[str], key: tuple[object, ...]) -> Batch:
    from_batch = _FROM_BATCH.format(*map(sql.Literal, key[:4]))
    copy = sql.SQL('COPY (SELECT * {} ORDER BY "offset") TO STDOUT (FORMAT BINARY)').format(from_batch)
    with connection.cursor().copy(copy) as output:
        copy_bytes = b"".join(map(bytes, output))
    as_arrays = sql.SQL(", ").join(
        sql.SQL('array_agg({} ORDER BY "offset")::text').format(sql.Identifier(name)) for name in columns
    )
    (arrays,) = connection.execute(sql.SQL("SELECT {} {}").format(as_arrays, from_batch)).fetchall()
    return Batch(key, copy_bytes, arrays)


def _seconds(
    environment: Environment,
    connection: "_CONNECTION",
    coupon_id: int,
    batches: Sequence[Batch],
    write: Callable[["_CONNECTION", Batch], None],
) -> float:
    """Empty the tables, write all batches and return the seconds. The table's trigger counts the coupon from 0."""
    environment.clear_decisions()
    connection.execute("UPDATE coupons SET issued = 0 WHERE id = %s", [coupon_id])
    began = time.monotonic()
    for batch in batches:
        log_id, partition, first, last, decided_at = batch.key
        with connection.transaction():
            connection.execute(_UPDATE_OFFSET, [log_id, partition], prepare=True)
            write(connection, batch)
            connection.execute(_INSERT_OUTBOX, [log_id, partition, first, last, decided_at], prepare=True)
    return time.monotonic() - began


def _copy(connection: "_CONNECTION", batch: Batch) -> None:
    with connection.cursor().copy("COPY requests FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(batch.copy_bytes)
