"""The database's limit: the very rows that the issuer has written, put back into the emptied table by the barest means.

The rows are read back from the table as the wire wants them, in the issuer's own batches, before the clock runs. Each
batch is one durable transaction with the partition's offset and one outbox row; the issuer writes one for each 500.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import LiteralString, NamedTuple

import psycopg
from psycopg import sql

from benchmarks.ground import Ground

_CONNECTION = psycopg.Connection
_BATCHES = (
    'SELECT log_id, partition, min("offset"), max("offset"), max(decided_at) FROM requests'
    " GROUP BY log_id, partition, decided_at ORDER BY min(sequence)"
)
_AT_ONCE = _BATCHES.replace("partition, decided_at ORDER", "partition ORDER")
_OF_BATCH = sql.SQL('FROM requests WHERE log_id = {} AND partition = {} AND "offset" BETWEEN {} AND {}')
_OFFSET = "UPDATE offsets SET next_offset = next_offset WHERE log_id = %s AND partition = %s"
_OUTBOX = (
    "INSERT INTO outbox (kind, log_id, partition, first_offset, last_offset, decided_at)"
    " VALUES ('notify', %s, %s, %s, %s, %s)"
)


class Batch(NamedTuple):
    """One transaction's rows in both forms: a binary COPY, and one array for each column."""

    place: tuple[object, ...]
    copied: bytes
    arrays: Sequence[str]


def measure(ground: Ground, coupon_id: int) -> dict[str, float]:
    """Rows per second by COPY and by INSERT of arrays, and the better of both; also by one COPY of all.

    The table is left as it was found.
    """
    with psycopg.connect(ground.stack.database_url, autocommit=True) as connection:
        columns = _columns(connection)
        names = [name for name, _ in columns]
        batches, whole = _read(connection, _BATCHES, names), _read(connection, _AT_ONCE, names)
        insert = _insert(columns)
        rows = ground.issued(coupon_id)
        copied = _seconds(ground, connection, coupon_id, batches, _copy)
        at_once = _seconds(ground, connection, coupon_id, whole, _copy)
        arrays = _seconds(ground, connection, coupon_id, batches, lambda tx, batch: _execute(tx, insert, batch))
    assert ground.issued(coupon_id) == rows, "the limit has not written the same rows"
    return {
        "limit_copy_per_second": rows / copied,
        "limit_copy_at_once_per_second": rows / at_once,
        "limit_arrays_per_second": rows / arrays,
        "limit_insert_per_second": rows / min(copied, arrays),
        "records_in_a_transaction": rows / len(batches),
    }


def _columns(connection: "_CONNECTION") -> list[tuple[str, str]]:
    """Names and types of the table's columns, in its own order."""
    query = (
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
        " WHERE attrelid = 'requests'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    return connection.execute(query).fetchall()


def _read(connection: "_CONNECTION", cut: LiteralString, names: Sequence[str]) -> list[Batch]:
    found = connection.execute(cut).fetchall()
    return [Batch(place, *_forms(connection, names, place)) for place in found]


def _forms(connection: "_CONNECTION", names: Sequence[str], place: tuple[object, ...]) -> tuple[bytes, Sequence[str]]:
    rows = _OF_BATCH.format(*map(sql.Literal, place[:4]))
    with connection.cursor().copy(
        sql.SQL('COPY (SELECT * {} ORDER BY "offset") TO STDOUT (FORMAT BINARY)').format(rows)
    ) as out:
        copied = b"".join(map(bytes, out))
    gathered = sql.SQL(", ").join(
        sql.SQL('array_agg({} ORDER BY "offset")::text').format(sql.Identifier(name)) for name in names
    )
    (arrays,) = connection.execute(sql.SQL("SELECT {} {}").format(gathered, rows)).fetchall()
    return copied, arrays


def _insert(columns: Iterable[tuple[str, str]]) -> sql.Composed:
    arrays = sql.SQL(", ").join(sql.SQL(f"%s::{kind}[]") for _, kind in columns)
    return sql.SQL("INSERT INTO requests SELECT * FROM unnest({})").format(arrays)


def _seconds(
    ground: Ground,
    connection: "_CONNECTION",
    coupon_id: int,
    batches: Sequence[Batch],
    write: Callable[["_CONNECTION", Batch], None],
) -> float:
    """Seconds for all batches, the coupon counted anew from nothing by the table's own trigger."""
    ground.clear()
    connection.execute("UPDATE coupons SET issued = 0 WHERE id = %s", [coupon_id])
    began = time.monotonic()
    for batch in batches:
        log, partition, first, last, decided_at = batch.place
        with connection.transaction():
            connection.execute(_OFFSET, [log, partition], prepare=True)
            write(connection, batch)
            connection.execute(_OUTBOX, [log, partition, first, last, decided_at], prepare=True)
    return time.monotonic() - began


def _copy(connection: "_CONNECTION", batch: Batch) -> None:
    with connection.cursor().copy("COPY requests FROM STDIN (FORMAT BINARY)") as into:
        into.write(batch.copied)


def _execute(connection: "_CONNECTION", insert: sql.Composed, batch: Batch) -> None:
    connection.execute(insert, batch.arrays, prepare=True)
