"""Responses to errors: an operator finds the log lines of a 5xx by the id in its body."""

import json
from typing import Any

import pytest

from service.api.errors import error_response
from service.domain.errors import CreationUnconfirmed, Refused, Unavailable
from service.domain.request import ReasonCode
from service.log_events import LogEvent


def test_the_log_lines_of_an_internal_error_have_the_id_of_its_response(caplog: pytest.LogCaptureFixture) -> None:
    """The line with the traceback and the line of the 500 carry one `problem_id`."""
    body = _body(ZeroDivisionError("a defect"))

    assert (body["status"], body["code"]) == (500, "internal")
    assert _logged_ids(caplog) == {
        LogEvent.UNHANDLED_EXCEPTION: body["problem_id"],
        LogEvent.SERVER_ERROR: body["problem_id"],
    }


def test_every_response_has_an_id_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """Two 503s for the same reason are two problems."""
    first, second = (_body(Unavailable("Kafka", "away"))["problem_id"] for _ in range(2))

    assert first != second
    assert _logged_ids(caplog)[LogEvent.SERVER_ERROR] == second


def test_what_a_repeat_may_create_twice_is_not_to_be_repeated() -> None:
    """The caller gets no Retry-After, by which clients repeat a request on their own."""
    response = error_response(CreationUnconfirmed("PostgreSQL", "connection lost"))

    assert (response.status, json.loads(response.body)["code"]) == (503, "creation_unconfirmed")
    assert b"retry-after" not in dict(response.headers)
    assert b"retry-after" in dict(error_response(Unavailable("PostgreSQL", "connection lost")).headers)


def test_the_location_of_a_duplicate_is_a_path_whatever_redis_holds() -> None:
    """A seat that something else wrote neither fails the response nor adds a header to it."""
    headers = error_response(Refused(ReasonCode.DUPLICATE, first_request_id="a/b\r\nX: 쿠")).headers

    assert (b"location", b"/issuances/a%2Fb%0D%0AX%3A%20%EC%BF%A0") in headers


def _body(error: Exception) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(bytes(error_response(error).body))
    return body


def _logged_ids(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """Return the problem ids in the log, by event; of several lines the last."""
    events = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    return {event["event"]: event["problem_id"] for event in events if "problem_id" in event}
