"""How the tables that keep raw records lay them out in columns."""

from base64 import b64decode, b64encode
from typing import Any

from service.domain.record import Headers, Raw
from service.domain.request import Place
from service.store.engine import milliseconds, moment


def raw_columns(raw: Raw) -> dict[str, Any]:
    """A record's bytes as columns."""
    return {
        "partition": raw.place.partition,
        "offset": raw.place.offset,
        "key": raw.key,
        "value": raw.value,
        "headers": [
            [_escaped(name), None if value is None else b64encode(value).decode()] for name, value in raw.headers
        ],
        "appended_at": moment(raw.appended_at_ms),
    }


def raw_of_row(row: Any) -> Raw:
    """The reverse of raw_columns."""
    headers: Headers = tuple(
        (_unescaped(name), None if value is None else b64decode(value)) for name, value in row.headers
    )
    columns = row._mapping  # noqa: SLF001  # public, by SQLAlchemy's naming
    place = Place(columns["partition"], columns["offset"])
    return Raw(place, row.key, row.value, headers, milliseconds(row.appended_at))


def _escaped(name: str) -> str:
    """JSON in the database takes any text but NUL."""
    return name.encode("unicode_escape").decode("ascii")


def _unescaped(name: str) -> str:
    return name.encode("ascii").decode("unicode_escape")
