"""The webhook receiver counts signed notices once and refuses everything else."""

from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import msgspec
import pytest
from standardwebhooks import Webhook

from testkit.webhook_receiver import WebhookReceiver, new_secret


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as listening:
        yield listening


@pytest.fixture
def connection(receiver: WebhookReceiver) -> Iterator[HTTPConnection]:
    opened = HTTPConnection(urlsplit(receiver.url).netloc, timeout=5)
    yield opened
    opened.close()


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


def test_signed_notices_are_counted_by_request_and_state(receiver: WebhookReceiver, connection: HTTPConnection) -> None:
    first, second = _notice(("a", "issued"), ("b", "dead")), _notice(("c", "issued"), ("a", "issued"))
    assert _post(connection, _signed(receiver.secret, first), first) == HTTPStatus.NO_CONTENT
    assert _post(connection, _signed(receiver.secret, second, "id-2"), second) == HTTPStatus.NO_CONTENT
    assert receiver.decisions == {("a", "issued"): 2, ("b", "dead"): 1, ("c", "issued"): 1}


def test_a_repeated_delivery_is_a_repeat_and_not_counted_again(receiver: WebhookReceiver) -> None:
    body = _notice(("a", "issued"))
    statuses = [receiver.receive(body, _signed(receiver.secret, body)) for _ in range(3)]
    assert set(statuses) == {HTTPStatus.NO_CONTENT}
    assert (receiver.decisions, len(receiver.posts), receiver.repeats) == ({("a", "issued"): 1}, 1, 2)
    assert receiver.changed_repeats == 0


def test_a_repeat_with_other_content_is_counted_as_changed(receiver: WebhookReceiver) -> None:
    for body in (_notice(("a", "issued")), _notice(("a", "dead"))):
        receiver.receive(body, _signed(receiver.secret, body))
    assert (receiver.decisions, receiver.repeats, receiver.changed_repeats) == ({("a", "issued"): 1}, 1, 1)


def test_a_post_without_a_valid_signature_is_refused(receiver: WebhookReceiver, connection: HTTPConnection) -> None:
    body = _notice(("a", "issued"))
    for headers in (_signed(new_secret(), body), {}):
        assert _post(connection, headers, body) == HTTPStatus.UNAUTHORIZED
    assert (receiver.forged, receiver.decisions) == (2, {})


def test_a_post_that_is_answered_with_an_error_is_not_counted(receiver: WebhookReceiver) -> None:
    body = _notice(("a", "issued"))
    receiver.response_status = HTTPStatus.SERVICE_UNAVAILABLE
    assert receiver.receive(body, _signed(receiver.secret, body)) == HTTPStatus.SERVICE_UNAVAILABLE
    assert (receiver.decisions, receiver.posts) == ({}, {})


def test_a_misbehaving_receiver_counts_the_post_and_responds_wrongly(
    receiver: WebhookReceiver, connection: HTTPConnection
) -> None:
    def misbehave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(HTTPStatus.IM_A_TEAPOT)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    body = _notice(("a", "issued"))
    receiver.misbehave = misbehave
    assert _post(connection, _signed(receiver.secret, body), body) == HTTPStatus.IM_A_TEAPOT
    assert (receiver.decisions, receiver.misbehaved) == ({("a", "issued"): 1}, 1)
    assert receiver.states("a") == ["issued"]
