"""The meaning of a response to its client, and the history file that the verification reads."""

import json
from pathlib import Path

import pytest

from service.verification.history import ClientAnswer, read_history
from testkit.history import AnswerHistory, TimedAnswer
from testkit.issuance_client import IssuanceResponse

USER, COUPON = 7, 42


def _answer(outcome: str, code: str | None = None, request_id: str | None = None) -> ClientAnswer:
    return ClientAnswer(USER, COUPON, outcome, code, request_id)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "location", "body", "answer"),
    [
        (202, "/issuances/abc", b'{"request_id": "abc", "state": "queued"}', _answer("accepted", None, "abc")),
        (409, "/issuances/abc", b'{"code": "duplicate"}', _answer("refused", "duplicate", "abc")),
        # the request_id of a problem names a line of the API's log, not an issuance request
        (409, None, b'{"code": "sold_out", "request_id": "f00"}', _answer("refused", "sold_out")),
        (503, None, b'{"code": "unavailable"}', _answer("unknown", "unavailable")),
        (500, None, b"Internal Server Error", _answer("unknown")),
        (502, None, b"[]", _answer("unknown")),
        # outside the API's contract
        (202, None, b"{}", _answer("unknown")),
        (307, "/elsewhere", b"", _answer("unknown")),
        (400, None, b"\xff", _answer("unknown")),
    ],
)
def test_a_response_is_interpreted(status: int, location: str | None, body: bytes, answer: ClientAnswer) -> None:
    assert IssuanceResponse(status, location, body).answer(USER, COUPON) == answer


def test_an_answer_is_counted_and_written_as_the_verification_reads_it(tmp_path: Path) -> None:
    with AnswerHistory(tmp_path / "history.jsonl") as history:
        history.add(
            TimedAnswer(7, 42, "accepted", request_id="abc", status=202, sent_at=1.25, answered_at=1.5),
        )
        history.add(TimedAnswer(8, 42, "unknown", "TimeoutError", status=None, sent_at=1.25, answered_at=1.5))
    assert history.counts == {"accepted": 1, "unknown": 1}
    assert json.loads(history.path.read_bytes().splitlines()[0]) == {
        "user_id": 7,
        "coupon_id": 42,
        "sent_at": 1.25,
        "answered_at": 1.5,
        "status": 202,
        "outcome": "accepted",
        "code": None,
        "request_id": "abc",
    }
    assert [answer.outcome for answer in read_history(history.path)] == ["accepted", "unknown"]
