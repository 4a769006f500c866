"""Hooks of schemathesis: they make those valid bodies acceptable that a JSON Schema cannot tell from others.

Bodies that the schema refuses stay as they are.
"""

import re
from typing import Any
from uuid import uuid4

import schemathesis

from service.api.request_parsing import KEY_PATTERN

#: the user of the first caller; that of the example in the document
USER = 42
#: leap years, in order; the API stores times from 1970 to 9998
_YEARS = {"opens_at": "2032", "closes_at": "2048"}
_YEAR = re.compile(r"\d{4}(?=-\d\d-\d\d[Tt])")


@schemathesis.hook
def map_body(_: schemathesis.HookContext, body: Any) -> Any:
    """Spell integers as integers, put windows in order, and let the caller request a coupon for itself.

    In JSON Schema 1.0 is an integer; the API takes 1 only.
    """
    if not isinstance(body, dict):
        return body
    body = {name: _with_integers(value) for name, value in body.items()}
    for name, year in _YEARS.items():
        if isinstance(body.get(name), str):
            body[name] = _YEAR.sub(year, body[name])
    if body.keys() == {"user_id"} and type(body["user_id"]) is int and body["user_id"] >= 1:
        body["user_id"] = USER
    return body


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: Any, __: dict[str, Any]) -> None:
    """Give each valid Idempotency-Key another value: a key must not be sent with two bodies."""
    headers = case.headers or {}
    key = headers.get("idempotency-key")
    if isinstance(key, str) and re.fullmatch(KEY_PATTERN, key):
        headers["idempotency-key"] = uuid4().hex


def _with_integers(value: Any) -> Any:
    """Return a value, and those of a list, with integral floats as integers."""
    if isinstance(value, list):
        return [_with_integers(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
