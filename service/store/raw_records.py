"""How tables store raw records in columns."""

import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from service.domain.record import Headers, RawRecord
from service.domain.request import LogPosition
from service.timestamps import to_datetime, to_milliseconds

#: the columns of a raw record, its log position first, and the array parameters that raw_arrays returns for them
POSITION_COLUMNS, BYTES_COLUMNS = 'partition, "offset"', "key, value, headers, appended_at"
RAW_COLUMNS = f"{POSITION_COLUMNS}, {BYTES_COLUMNS}"
RAW_ARRAYS = (
    "CAST(:partitions AS int[]), CAST(:offsets AS bigint[]), CAST(:keys AS bytea[]), CAST(:values AS bytea[]),"
    " CAST(:headers AS jsonb[]), CAST(:appended AS timestamptz[])"
)
#: a statement of this size ends well within its timeout
_MAX_STATEMENT_BYTES = 4_000_000
_Item = TypeVar("_Item")


def split_by_bytes(
    items: Sequence[_Item],
    bytes_of: Callable[[_Item], int],
    max_bytes: int = _MAX_STATEMENT_BYTES,
    max_items: int = sys.maxsize,
) -> Iterator[Sequence[_Item]]:
    """Split the items, in order, so that each group has at most so many bytes and items; by default for a statement.

    An item that has more bytes alone is a group of its own.
    """
    first, size = 0, 0
    for at, item in enumerate(items):
        more = bytes_of(item)
        if at > first and (size + more > max_bytes or at - first == max_items):
            yield items[first:at]
            first, size = at, 0
        size += more
    if items[first:]:
        yield items[first:]


def record_bytes(raw: RawRecord) -> int:
    """Return how many bytes the key, the value and the headers of a record have together."""
    headers = sum(len(name) + len(value or b"") for name, value in raw.headers)
    return len(raw.key or b"") + len(raw.value or b"") + headers


def raw_arrays(raws: Sequence[RawRecord]) -> dict[str, list[Any]]:
    """Return the values of records, one array per column."""
    # jsonb cannot store NUL characters in names, nor bytes
    headers = [
        [
            (name.encode("unicode_escape").decode("ascii"), None if value is None else b64encode(value).decode())
            for name, value in raw.headers
        ]
        for raw in raws
    ]
    return {
        "partitions": [raw.log_position.partition for raw in raws],
        "offsets": [raw.log_position.offset for raw in raws],
        "keys": [raw.key for raw in raws],
        "values": [raw.value for raw in raws],
        "headers": [json.dumps(pairs) for pairs in headers],
        "appended": [to_datetime(raw.appended_at_ms) for raw in raws],
    }


def raw_of_row(row: Any) -> RawRecord:
    """Return the record that a row stores."""
    # the reverse of raw_arrays
    headers: Headers = tuple(
        (name.encode("ascii").decode("unicode_escape"), None if value is None else b64decode(value))
        for name, value in row.headers
    )
    columns = row._mapping  # noqa: SLF001  # public, by SQLAlchemy's naming
    position = LogPosition(columns["partition"], columns["offset"])
    return RawRecord(position, row.key, row.value, headers, to_milliseconds(row.appended_at))
