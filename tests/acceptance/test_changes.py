"""Changes of a coupon during its sale: applied by the gate, ordered by the log, proven afterwards."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import httpx
import psycopg
import pytest

from tests.acceptance.test_bad_http import assert_problem
from tests.system import System

_JSON = {"content-type": "application/json"}
_CHANGES = "SELECT count(*) FROM coupon_changes WHERE coupon_id = :id"
_BAD_CHANGES = [
    b'{"issued": 0}',
    b'{"name": ""}',
    b'{"quantity": true}',
    b'{"quantity": 2.5}',
    b'{"quantity": 2.0}',
    b'{"quantity": "2"}',
    b'{"quantity": 0}',
    b'{"quantity": -1}',
    b'{"quantity": 2147483648}',
    b'{"quantity": null}',
    b'{"waitlist": -1}',
    b'{"state": "sold_out"}',
    b'{"state": "scheduled"}',
    b'{"state": "PAUSED"}',
    b'{"state": null}',
    b'{"opens_at": "2030-01-01T00:00:00"}',
    b'{"closes_at": "tomorrow"}',
    b'{"closes_at": 1893456000}',
    b'{"closes_at": "9999-12-31T23:59:59Z"}',
    b"[]",
    b"",
    b"{",
]


def test_refused_users_can_ask_again_after_a_raise(system: System) -> None:
    """A `sold_out` from the gate is valid at its instant only: two more coupons go to two refused users, in order."""
    coupon = system.make_coupon(quantity=1)
    assert system.wait_until_final(accepted(system, coupon, 1))["sequence"] == 1
    assert refused(system, coupon, 2) == refused(system, coupon, 3) == "sold_out"

    raised = change(system, coupon, quantity=3)

    assert (raised["quantity"], raised["remaining"], raised["state"]) == (3, 2, "open")
    assert [system.wait_until_final(accepted(system, coupon, user))["sequence"] for user in (2, 3)] == [2, 3]
    assert refused(system, coupon, 4) == "sold_out"


def test_a_raise_promotes_standby_first(system: System) -> None:
    """P5: without any retry, the new seat goes at once to the first standby request behind a held seat."""
    coupon = system.make_coupon(quantity=1, waitlist=2)
    with frozen(system, "worker"):
        failing = accepted(system, coupon, 1, fault="22012 1")
        first, second = accepted(system, coupon, 2), accepted(system, coupon, 3)
        system.eventually(lambda: system.read_status(second)["state"] == "standby")

        change(system, coupon, quantity=2)

        assert [system.read_status(name)["state"] for name in (failing, first, second)] == [
            "retrying",
            "issued",
            "standby",
        ]
    assert (system.wait_until_final(failing)["sequence"], system.wait_until_final(first)["sequence"]) == (2, 1)
    page = system.wait_until_final(second)
    assert (page["state"], page["code"]) == ("refused", "sold_out")


@pytest.mark.parametrize("state", ["paused", "closed"])
def test_the_gate_refuses_after_a_pause_or_close(system: System, state: str) -> None:
    """The next request is refused, requests accepted before are issued, and `open` reverts the change."""
    coupon = system.make_coupon(quantity=5)
    before = accepted(system, coupon, 1)
    system.wait_until_final(before)

    assert change(system, coupon, state=state)["state"] == state

    assert refused(system, coupon, 2) == state
    assert system.http.get(f"/coupons/{coupon}").json()["state"] == state
    assert change(system, coupon, state="open")["state"] == "open"
    assert system.wait_until_final(accepted(system, coupon, 2))["sequence"] == 2


def test_a_changed_window_applies_to_the_next_request(system: System) -> None:
    """A later opening and an earlier close apply to the next request; null removes the limit."""
    coupon = system.make_coupon(quantity=5)

    assert change(system, coupon, opens_at="2099-01-01T00:00:00Z")["state"] == "scheduled"
    assert refused(system, coupon, 1) == "not_open"
    assert change(system, coupon, opens_at=None, closes_at="2020-01-01T00:00:00+09:00")["state"] == "closed"
    assert refused(system, coupon, 1) == "closed"
    assert change(system, coupon, closes_at=None)["state"] == "open"

    assert system.wait_until_final(accepted(system, coupon, 1))["state"] == "issued"


@pytest.mark.parametrize(
    ("state", "answers"),
    [("closed", [("issued", None), ("refused", "closed")]), ("paused", [("issued", None), ("issued", None)])],
)
def test_a_close_applies_to_undecided_requests_and_a_pause_does_not(
    system: System, state: str, answers: list[tuple[str, str | None]]
) -> None:
    """ADR 0011: a close refuses requests that are not decided yet, a pause does not; `open` accepts new ones."""
    coupon = system.make_coupon(quantity=5)
    decided = accepted(system, coupon, 1)
    system.wait_until_final(decided)
    with frozen(system, "issuer"):
        undecided = accepted(system, coupon, 2)
        change(system, coupon, state=state)

    pages = [system.wait_until_final(name) for name in (decided, undecided)]

    assert [(page["state"], page["code"]) for page in pages] == answers
    system.eventually(lambda: set(system.receiver.states(undecided)) == {answers[1][0]})
    change(system, coupon, state="open")
    assert system.wait_until_final(accepted(system, coupon, 3))["state"] == "issued"


def test_a_user_refused_by_a_close_can_ask_again(system: System) -> None:
    """A refusal for any reason but `sold_out` releases the seat."""
    coupon = system.make_coupon(quantity=5)
    with frozen(system, "issuer"):
        undecided = accepted(system, coupon, 1)
        change(system, coupon, state="closed")
    assert system.wait_until_final(undecided)["code"] == "closed"
    change(system, coupon, state="open")

    repeat = system.eventually(
        lambda: answer if (answer := system.request_issuance(coupon, 1)) and answer.status_code == 202 else None
    )

    assert system.wait_until_final(repeat.json()["request_id"])["state"] == "issued"


def test_a_quantity_below_issued_plus_held_is_refused(system: System) -> None:
    """P1: issued and held both count; the coupon is unchanged, and a quantity equal to their sum is allowed."""
    coupon = system.make_coupon(quantity=5)
    with frozen(system, "worker"):
        failing = accepted(system, coupon, 1, fault="22012 1")
        system.wait_until_final(accepted(system, coupon, 2))

        answer = system.http.patch(f"/coupons/{coupon}", json={"quantity": 1})

        assert_problem(answer, 409, "quantity_below_live")
        assert system.http.get(f"/coupons/{coupon}").json()["quantity"] == 5
        assert change(system, coupon, quantity=2)["remaining"] == 0
    assert system.wait_until_final(failing)["state"] == "issued"
    assert refused(system, coupon, 3) == "sold_out"


def test_a_window_that_closes_before_it_opens_is_refused(system: System) -> None:
    """The new closing time conflicts with the stored opening time."""
    coupon = system.make_coupon(quantity=1, opens_at="2030-01-01T00:00:00Z")

    answer = system.http.patch(f"/coupons/{coupon}", json={"closes_at": "2029-01-01T00:00:00Z"})

    assert_problem(answer, 409, "window")


def test_bad_changes_are_problems(system: System) -> None:
    """Each invalid change is refused, and the coupon is unchanged."""
    coupon = system.make_coupon(quantity=1)
    before = system.http.get(f"/coupons/{coupon}").json()

    for body in _BAD_CHANGES:
        assert_problem(system.http.patch(f"/coupons/{coupon}", content=body, headers=_JSON), 422, "invalid")

    assert system.http.get(f"/coupons/{coupon}").json() == before
    assert system.count(_CHANGES, id=coupon) == 1
    assert_problem(system.http.patch(f"/coupons/{coupon}", content=b"{}"), 415, "unsupported_media_type")


def test_an_unknown_coupon_cannot_be_changed(system: System) -> None:
    """An unused id is answered with 404, an invalid one with 422."""
    assert_problem(system.http.patch(f"/coupons/{2**62}", json={"quantity": 5}), 404, "unknown_coupon")
    assert_problem(system.http.patch("/coupons/01", json={"quantity": 5}), 422, "invalid")


def test_a_repeated_change_has_no_effect(system: System) -> None:
    """A repeated change and an empty one are answered and not recorded."""
    coupon = system.make_coupon(quantity=5)
    values = {"quantity": 7, "waitlist": 1, "state": "paused", "closes_at": "2099-01-01T00:00:00Z"}

    first, second, nothing = (change(system, coupon, **sent) for sent in (values, values, {}))

    assert first == second == nothing
    assert system.count(_CHANGES, id=coupon) == 2


def test_a_change_without_valkey_reaches_the_gate_afterwards(system: System) -> None:
    """P6: the change is stored and answered at once; the gate gets it after Valkey's restart."""
    coupon = system.make_coupon(quantity=5)
    system.stack.stop("valkey")
    try:
        assert change(system, coupon, state="paused")["state"] == "paused"
        assert system.count(f"{_CHANGES} AND published_at IS NULL", id=coupon) == 1
    finally:
        system.stack.start("valkey")
    users = count(1)
    system.eventually(lambda: system.request_until_answered(coupon, next(users)).json().get("code") == "paused")
    system.eventually(lambda: system.count(f"{_CHANGES} AND published_at IS NULL", id=coupon) == 0)


def test_verification_of_one_coupon(system: System) -> None:
    """The endpoint checks the coupon's own records and rows only, and returns the numbers of each check."""
    coupon, other = system.make_coupon(quantity=2), system.make_coupon(quantity=1)
    for request_id in [accepted(system, coupon, user) for user in (1, 2)] + [accepted(system, other, 1)]:
        system.wait_until_final(request_id)
    system.produce(coupon, b"poison")

    answer = system.http.get(f"/coupons/{coupon}/verification")

    assert answer.status_code == 200
    verification = answer.json()
    assert verification["ok"] is True
    assert {check["promise"] for check in verification["checks"]} == {"P1", "P2", "P3", "P4", "P5"}
    assert all(check["ok"] and check["must_be_zero"] for check in verification["checks"])
    numbers = {check["what"]: check["numbers"] for check in verification["checks"]}
    assert (numbers["never over-issued"]["coupons"], numbers["never over-issued"]["issued"]) == (1, 2)
    assert numbers["nothing lost in the log"]["records"] == 2


def test_verification_of_one_coupon_finds_its_fault_only(system: System) -> None:
    """P4: a row whose request id differs from its record's fails the check; another coupon's check passes."""
    coupon, other = system.make_coupon(quantity=1), system.make_coupon(quantity=1)
    name = accepted(system, coupon, 1)
    with overwritten_request_id(system, name):
        results = [system.http.get(f"/coupons/{checked}/verification").json() for checked in (coupon, other)]

    assert [result["ok"] for result in results] == [False, True]
    assert [check["numbers"]["contradicted"] for check in results[0]["checks"] if not check["ok"]] == [1]


def test_an_unknown_coupon_has_no_verification(system: System) -> None:
    """An unused id is answered with 404."""
    assert_problem(system.http.get(f"/coupons/{2**62}/verification"), 404, "unknown_coupon")


def change(system: System, coupon: int, **values: Any) -> dict[str, Any]:
    """Change a coupon; return the answer."""
    answer = system.http.patch(f"/coupons/{coupon}", json=values)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def accepted(system: System, coupon: int, user: int, fault: str | None = None) -> str:
    """Send a request that must be accepted; return its id."""
    return str(_asked(system, coupon, user, 202, fault).json()["request_id"])


def refused(system: System, coupon: int, user: int) -> str:
    """Send a request that the gate must refuse; return the code."""
    return str(_asked(system, coupon, user, 409, None).json()["code"])


def _asked(system: System, coupon: int, user: int, status: int, fault: str | None) -> httpx.Response:
    answer = system.request_issuance(coupon, user, fault)
    assert answer is not None
    assert answer.status_code == status, answer.text
    return answer


@contextmanager
def overwritten_request_id(system: System, request_id: str) -> Iterator[None]:
    """Let a row have another request id during the block, written as the superuser: the service's role cannot.

    The notice is awaited first: it is read from the row, and would have the other id.
    """
    system.eventually(lambda: system.receiver.states(request_id))
    rename = "UPDATE requests SET request_id = %s WHERE request_id = %s"
    with psycopg.connect(system.stack.admin_database_url, autocommit=True) as connection:
        connection.execute(rename, ["another", request_id])
        try:
            yield
        finally:
            connection.execute(rename, [request_id, "another"])


@contextmanager
def frozen(system: System, name: str) -> Iterator[None]:
    """Stop the process with SIGSTOP during the block."""
    pid = system.stack.pid(name)
    os.killpg(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(pid, signal.SIGCONT)
