"""What all bodies share: the strict decoder, the encoder, ids and the body of errors."""

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from service.limits import MAX_ID

Id = Annotated[int, Meta(ge=1, le=MAX_ID, description="a JSON integer from 1 to 2⁶³−1")]
Body = TypeVar("Body", bound=Struct)


class Problem(Struct, frozen=True):
    """Problem details of RFC 9457."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str


def decode(body: bytes, kind: type[Body]) -> Body:
    """Decode a body strictly; raise msgspec.MsgspecError, RecursionError or UnicodeDecodeError with the fault."""
    return msgspec.json.decode(body, type=kind)


encode = msgspec.json.Encoder().encode


def schema_of(*kinds: type[Struct]) -> dict[str, Any]:
    """Return the JSON Schemas of body types for the OpenAPI document, by name."""
    _, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    return components
