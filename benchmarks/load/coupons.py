"""Coupons created and changed over HTTP: these calls are the same for every commit of the project."""

import json
from http.client import HTTPConnection
from typing import Any

_HOST = "127.0.0.1"
_HEADERS = {"Content-Type": "application/json"}


def create_coupon(port: int, quantity: int, **fields: object) -> int:
    """Create a coupon with these fields and return its id."""
    return int(_send(port, "POST", "/coupons", {"name": "a benchmark", "quantity": quantity, **fields})["id"])


def change_coupon(port: int, coupon_id: int, **fields: object) -> None:
    """Change these fields of a coupon."""
    _send(port, "PATCH", f"/coupons/{coupon_id}", fields)


def _send(port: int, method: str, path: str, body: dict[str, object]) -> Any:
    """Return the decoded response; raise AssertionError for any status but 200 and 201."""
    connection = HTTPConnection(_HOST, port)
    try:
        connection.request(method, path, json.dumps(body), _HEADERS)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    assert response.status in (200, 201), f"{method} {path}: {response.status} {answer!r}"
    return json.loads(answer)
