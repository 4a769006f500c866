"""What all bodies share: one strict decoder, one encoder, ids and moments."""

from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from service.domain.coupon import MAX_ID
from service.store.engine import to_milliseconds
from service.stream.codec import MAX_TIMESTAMP_MS

Id = Annotated[int, Meta(ge=1, le=MAX_ID, description="a JSON integer from 1 to 2⁶³−1")]
Body = TypeVar("Body", bound=Struct)


def decode(body: bytes, kind: type[Body]) -> Body:
    """Reads a body strictly; raises msgspec.MsgspecError or RecursionError saying what is wrong with it."""
    return msgspec.json.decode(body, type=kind)


encode = msgspec.json.Encoder().encode


def schema_of(*kinds: type[Struct]) -> dict[str, Any]:
    """The kinds' JSON Schemas for the OpenAPI document, by name."""
    _, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    return components


def to_storable_milliseconds(name: str, at: datetime) -> int:
    """Milliseconds since 1970; raises ValueError where the database could not keep the moment."""
    at_ms = to_milliseconds(at)
    if not 0 <= at_ms <= MAX_TIMESTAMP_MS:
        raise ValueError(f"{name} must lie between the years 1970 and 9998")
    return at_ms


def to_datetime(at_ms: int | None) -> datetime | None:
    """The reverse."""
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)
