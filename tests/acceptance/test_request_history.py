"""The history of a request through failed attempts, death, a replay and its notices, with every process running."""

from typing import Any

from tests.acceptance.test_changes import accepted
from tests.acceptance.test_commands import coupons, parsed, rows
from tests.acceptance.test_dead_letters import only_dead_letter
from tests.system import System

_UNTIL_REPLAYED = "22012 3"


def test_a_history_tells_everything_that_happened(system: System) -> None:
    """Three attempts with their errors, the dead letter, the replay with who did it, and the notices."""
    coupon = system.make_coupon(quantity=1)
    system.receiver.response_status = 503
    try:
        name = accepted(system, coupon, 7, _UNTIL_REPLAYED)
        system.eventually(lambda: "notice_failed" in _kinds(_history(system, name)))
    finally:
        system.receiver.response_status = 204
    system.eventually(lambda: {"forwarded", "notice_delivered"} <= set(_kinds(_history(system, name))))
    system.http.post(f"/dead-letters/{only_dead_letter(system, coupon)}/replay")
    system.eventually(lambda: _kinds(_history(system, name)).count("notice_delivered") == 2)

    shown = _history(system, name)
    printed = parsed(coupons(system, "request", "history", name, "--json"))

    events = shown["events"]
    decided = [event for event in events if event["kind"] not in ("forwarded", "notice_failed", "notice_delivered")]
    assert _kinds({"events": decided}) == [
        "requested",
        "appended",
        "attempt_failed",
        "attempt_failed",
        "attempt_failed",
        "decided",
        "replayed",
        "decided",
    ]
    assert (shown["request_id"], shown["state"], shown["code"]) == (name, "issued", None)
    assert [event["attempt"] for event in decided[2:5]] == [1, 2, 3]
    errors = [event["error"].partition("\n")[0] for event in decided[2:5]]
    assert set(errors) == {"psycopg.errors.DivisionByZero: an injected fault"}
    dead_letter = only_dead_letter(system, coupon)
    dead, replayed, issued = decided[5:]
    assert (dead["state"], dead["code"], dead["dead_letter_id"]) == ("dead", "exhausted", dead_letter)
    assert (replayed["state"], replayed["by"], replayed["dead_letter_id"]) == (
        "issued",
        "authentication off",
        dead_letter,
    )
    assert (issued["state"], issued["sequence"], "dead_letter_id" in issued) == ("issued", 1, False)
    assert all(event["at"] for event in events)
    failed, *delivered = [event for event in events if event["kind"].startswith("notice_")]
    assert "it answered 503" in failed["error"]
    assert (delivered[0]["delivery_id"], delivered[0]["attempt"]) == (failed["delivery_id"], failed["attempt"] + 1)
    assert [event["status"] for event in delivered] == [204, 204]
    assert [event["kind"] for event in printed["events"]] == _kinds(shown)
    piped = rows(coupons(system, "request", "history", name))
    assert [row[1] for row in piped] == _kinds(shown)


def _history(system: System, request_id: str) -> dict[str, Any]:
    response = system.http.get(f"/issuances/{request_id}/history")
    assert response.status_code == 200, response.text
    return dict(response.json())


def _kinds(history: dict[str, Any]) -> list[str]:
    return [event["kind"] for event in history["events"]]
