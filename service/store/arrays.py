"""Columns of numbers in PostgreSQL's binary form of bigint[]: cheaper to make, and to read, than text or lists."""

import sys
from array import array
from collections.abc import Iterable
from struct import Struct

from psycopg import adapters
from psycopg.adapt import Dumper
from psycopg.postgres import types
from psycopg.pq import Format

_BIGINT = types["int8"]
#: dimensions, null flag, element type, length, lower bound (PostgreSQL: array_send)
_HEAD = Struct(">iiIii")
#: four bytes that say that eight follow, as this machine's int has them in memory
_EIGHT = array("i", (8).to_bytes(4, "big"))


def bigints(values: Iterable[int]) -> "array[int]":
    """Numbers as a query's parameter of type bigint[]."""
    return array("q", values)


class _Bigints(Dumper):
    """Writes each number as its length and its eight bytes, by slices and not one by one."""

    format = Format.BINARY
    oid = _BIGINT.array_oid

    def dump(self, values: "array[int]") -> bytes:
        count = len(values)
        halves = _halves(values)
        out = _EIGHT * (3 * count)
        out[1::3], out[2::3] = halves[0::2], halves[1::2]
        return _HEAD.pack(1, 0, _BIGINT.oid, count, 1) + out.tobytes()


def _halves(values: "array[int]") -> "array[int]":
    """The numbers' bytes in the network's order, four by four."""
    if sys.byteorder == "little":
        values = array("q", values)
        values.byteswap()
    return array("i", values.tobytes())


adapters.register_dumper(array, _Bigints)
