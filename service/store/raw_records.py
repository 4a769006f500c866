"""How the tables that keep raw records lay them out in columns."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from service.domain.record import Headers, RawRecord
from service.domain.request import LogPosition
from service.store.engine import to_datetime, to_milliseconds

#: the columns of a raw record, its place first, and as arrays of a query what raw_arrays gives for them
PLACE_COLUMNS, BYTES_COLUMNS = 'partition, "offset"', "key, value, headers, appended_at"
RAW_COLUMNS = f"{PLACE_COLUMNS}, {BYTES_COLUMNS}"
RAW_ARRAYS = (
    "CAST(:partitions AS int[]), CAST(:offsets AS bigint[]), CAST(:keys AS bytea[]), CAST(:values AS bytea[]),"
    " CAST(:headers AS jsonb[]), CAST(:appended AS timestamptz[])"
)
#: a statement with so many bytes ends well within its time limit
_BYTES_AT_ONCE = 4_000_000
_Item = TypeVar("_Item")


def split_by_bytes(items: Sequence[_Item], raw: Callable[[_Item], RawRecord]) -> Iterator[Sequence[_Item]]:
    """The items in order, cut where their records are too large for one statement."""
    first, size = 0, 0
    for at, item in enumerate(items):
        more = _size(raw(item))
        if size + more > _BYTES_AT_ONCE and at > first:
            yield items[first:at]
            first, size = at, 0
        size += more
    if items[first:]:
        yield items[first:]


def _size(raw: RawRecord) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in raw.headers)
    return len(raw.key or b"") + len(raw.value or b"") + headers


def raw_arrays(raws: Sequence[RawRecord]) -> dict[str, list[Any]]:
    """The bytes of records, one array for each column."""
    return {
        "partitions": [raw.log_position.partition for raw in raws],
        "offsets": [raw.log_position.offset for raw in raws],
        "keys": [raw.key for raw in raws],
        "values": [raw.value for raw in raws],
        "headers": [json.dumps([_written(*header) for header in raw.headers]) for raw in raws],
        "appended": [to_datetime(raw.appended_at_ms) for raw in raws],
    }


def raw_of_row(row: Any) -> RawRecord:
    """The reverse, for one row."""
    headers: Headers = tuple(
        (_unescaped(name), None if value is None else b64decode(value)) for name, value in row.headers
    )
    columns = row._mapping  # noqa: SLF001  # public, by SQLAlchemy's naming
    place = LogPosition(columns["partition"], columns["offset"])
    return RawRecord(place, row.key, row.value, headers, to_milliseconds(row.appended_at))


def _written(name: str, value: bytes | None) -> list[str | None]:
    """JSON in the database takes any text but NUL, and no bytes."""
    escaped = name.encode("unicode_escape").decode("ascii")
    return [escaped, None if value is None else b64encode(value).decode()]


def _unescaped(name: str) -> str:
    return name.encode("ascii").decode("unicode_escape")
