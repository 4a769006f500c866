"""The demo's receiver takes what is signed, once, and nothing else."""

from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPConnection
from urllib.parse import urlsplit

import msgspec
import pytest
from standardwebhooks import Webhook

from demo.receiver import Receiver, listening


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def connection(receiver: Receiver) -> Iterator[HTTPConnection]:
    with listening(receiver) as url:
        made = HTTPConnection(urlsplit(url).netloc, timeout=5)
        yield made
        made.close()


def _notice(*events: tuple[str, str]) -> bytes:
    return msgspec.json.encode({"data": [{"request_id": request_id, "state": state} for request_id, state in events]})


def _signed(secret: str, body: bytes, webhook_id: str = "id-1") -> dict[str, str]:
    at = datetime.now(UTC)
    signature = Webhook(secret).sign(webhook_id, at, body.decode())
    timestamp = str(int(at.timestamp()))
    return {"webhook-id": webhook_id, "webhook-timestamp": timestamp, "webhook-signature": signature}


def _post(connection: HTTPConnection, headers: dict[str, str], body: bytes) -> int:
    connection.request("POST", "/notices", body, headers)
    response = connection.getresponse()
    response.read()
    return response.status


def test_signed_notices_are_counted_by_request_and_state(receiver: Receiver, connection: HTTPConnection) -> None:
    first, second = _notice(("a", "issued"), ("b", "dead")), _notice(("c", "issued"), ("a", "issued"))
    assert _post(connection, _signed(receiver.secret, first), first) == HTTPStatus.NO_CONTENT
    assert _post(connection, _signed(receiver.secret, second, "id-2"), second) == HTTPStatus.NO_CONTENT
    assert receiver.told == {("a", "issued"): 2, ("b", "dead"): 1, ("c", "issued"): 1}


def test_a_delivery_made_again_is_a_repeat_and_not_summed(receiver: Receiver) -> None:
    body = _notice(("a", "issued"))
    answers = [receiver.take(_signed(receiver.secret, body), body) for _ in range(3)]
    assert set(answers) == {HTTPStatus.NO_CONTENT}
    assert (receiver.told, len(receiver.deliveries), receiver.repeats) == ({("a", "issued"): 1}, 1, 2)


def test_what_another_key_signed_or_nobody_is_refused(receiver: Receiver, connection: HTTPConnection) -> None:
    body = _notice(("a", "issued"))
    for headers in (_signed(Receiver().secret, body), {}):
        assert _post(connection, headers, body) == HTTPStatus.UNAUTHORIZED
    assert (receiver.forged, receiver.told) == (2, {})
