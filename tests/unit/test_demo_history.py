"""What an answer means to its user, and the form in which the demo writes it down."""

import json
from pathlib import Path

import pytest

from demo.client import understood
from demo.history import Answer, Call, History, Outcome
from service.verification import history as proof_side

ACCEPTED = Answer(202, Outcome.ACCEPTED, None, "abc")


@pytest.mark.parametrize(
    ("status", "location", "body", "meaning"),
    [
        (202, "/issuances/abc", b'{"request_id": "abc", "state": "queued"}', ACCEPTED),
        (409, "/issuances/abc", b'{"code": "duplicate"}', Answer(409, Outcome.REFUSED, "duplicate", "abc")),
        # a problem's own request_id names a line of the API's log, no request for a coupon
        (409, None, b'{"code": "sold_out", "request_id": "f00"}', Answer(409, Outcome.REFUSED, "sold_out", None)),
        (503, None, b'{"code": "unavailable"}', Answer(503, Outcome.UNKNOWN, "unavailable", None)),
        (500, None, b"Internal Server Error", Answer(500, Outcome.UNKNOWN, None, None)),
        (502, None, b"[]", Answer(502, Outcome.UNKNOWN, None, None)),
    ],
)
def test_an_answer_is_understood(status: int, location: str | None, body: bytes, meaning: Answer) -> None:
    assert understood(status, location, body) == meaning


def test_a_call_is_counted_and_written_as_the_proof_reads_it(tmp_path: Path) -> None:
    with History(tmp_path / "history.jsonl") as history:
        history.add(Call("issue", 7, 42, 1.25, 1.5, *ACCEPTED))
        history.add(Call("issue", 8, 42, 1.25, 1.5, None, Outcome.UNKNOWN, "TimeoutError", None))
    assert history.counts == {Outcome.ACCEPTED: 1, Outcome.UNKNOWN: 1}
    assert json.loads(history.path.read_bytes().splitlines()[0]) == {
        "op": "issue",
        "user_id": 7,
        "coupon_id": 42,
        "t0": 1.25,
        "t1": 1.5,
        "status": 202,
        "outcome": "accepted",
        "code": None,
        "request_id": "abc",
    }
    assert [told.outcome for told in proof_side.read_history(history.path)] == ["accepted", "unknown"]
