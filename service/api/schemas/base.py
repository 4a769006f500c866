"""What all bodies share: the strict decoder and ids."""

import json
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from service.domain.errors import InvalidInput
from service.domain.request import ReasonCode
from service.limits import MAX_ID, MAX_SAFE_ID

_INT64 = {"format": "int64"}
#: a user whom a caller names, or an id that the service has counted
SafeId = Annotated[
    int,
    Meta(
        ge=1,
        le=MAX_SAFE_ID,
        description="a JSON integer from 1 to 2⁵³−1, which JavaScript holds exactly",
        extra_json_schema=_INT64,
    ),
]
#: an id that may come from a record of another producer
Id = Annotated[int, Meta(ge=1, le=MAX_ID, description="a JSON integer from 1 to 2⁶³−1", extra_json_schema=_INT64)]
#: why a request was refused or is dead; clients must expect codes that later versions add, so it is no enum in the
#: OpenAPI document
Reason = Annotated[str, Meta(extra_json_schema={"x-extensible-enum": [code.value for code in ReasonCode]})]
Time = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0, extra_json_schema=_INT64)]
_QUOTES_OF_ONE_KEY = 2
Body = TypeVar("Body", bound=Struct)


def decode(body: bytes, kind: type[Body]) -> Body:
    """Decode a JSON body strictly; raise InvalidInput with the fault.

    An object must not have a key twice: parsers differ in which of the values they take (RFC 8259, section 4).
    """
    try:
        decoded = msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(str(error)) from None
    if body.count(b'"') > _QUOTES_OF_ONE_KEY:
        json.loads(body, object_pairs_hook=_refuse_repeated_keys)
    return decoded


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise InvalidInput(f"Object contains the field `{repeated}` twice")


def schema_of(*kinds: type[Struct]) -> dict[str, Any]:
    """Return the JSON Schemas of body types for the OpenAPI document, by name."""
    _, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    return components
