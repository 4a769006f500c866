"""Array parameters of queries: numbers in PostgreSQL's binary format, and the log positions of rows.

Binary bigint[] is cheaper to write and to parse than text or lists. Rows are selected by three arrays, with the log id
repeated for each. With a single value, a planner without fresh statistics would expect few rows and read the whole log.
"""

import sys
from array import array
from collections.abc import Iterable, Sequence
from struct import Struct

from psycopg import adapters
from psycopg.adapt import Dumper
from psycopg.postgres import types
from psycopg.pq import Format

from service.domain.request import LogPosition

_BIGINT = types["int8"]
#: dimensions, null flag, element type, length, lower bound (PostgreSQL: array_send)
_HEAD = Struct(">iiIii")
#: the length 8 in network byte order, as an int of this machine
_EIGHT = array("i", (8).to_bytes(4, "big"))


def bigints(values: Iterable[int]) -> "array[int]":
    """Return numbers as a query parameter of type bigint[]."""
    return array("q", values)


def encode_bigints(values: "array[int]") -> bytes:
    """Return numbers in PostgreSQL's binary format: each as its length and its eight bytes.

    Slices instead of a loop. An empty array has one dimension of length 0, which PostgreSQL accepts.
    """
    count = len(values)
    if sys.byteorder == "little":
        values = array("q", values)
        values.byteswap()
    halves = array("i", values.tobytes())  # network byte order, four bytes each
    out = _EIGHT * (3 * count)
    out[1::3], out[2::3] = halves[0::2], halves[1::2]
    return _HEAD.pack(1, 0, _BIGINT.oid, count, 1) + out.tobytes()


class _Bigints(Dumper):
    format = Format.BINARY
    oid = _BIGINT.array_oid

    def dump(self, values: "array[int]") -> bytes:
        return encode_bigints(values)


adapters.register_dumper(array, _Bigints)

#: the values of log_position_arrays, for unnest; name its first three columns l, p and o
LOG_POSITION_ARRAYS = "CAST(:logs AS smallint[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[])"
AT_LOG_POSITION = 'log_id = l AND partition = p AND "offset" = o'


def log_position_arrays(log_id: int, log_positions: Sequence[LogPosition]) -> dict[str, list[int]]:
    """Return the parameters of LOG_POSITION_ARRAYS."""
    return {
        "logs": [log_id] * len(log_positions),
        "partitions": [at.partition for at in log_positions],
        "offsets": [at.offset for at in log_positions],
    }
