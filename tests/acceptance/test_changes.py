"""An operator changes a coupon while it is sold: heard at the gate, counted in the log, proved afterwards."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests.acceptance.test_bad_http import assert_problem
from tests.system import System

_JSON = {"content-type": "application/json"}
_CHANGES = "SELECT count(*) FROM coupon_changes WHERE coupon_id = :id"
_BAD_CHANGES = [
    b'{"issued": 0}',
    b'{"name": "another"}',
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


def test_after_a_raise_the_refused_may_ask_again(system: System) -> None:
    """Section 3: "sold out" spoke of its instant; two more are there, so two of the refused get one, in order."""
    coupon = system.make_coupon(quantity=1)
    assert system.final(accepted(system, coupon, 1))["sequence"] == 1
    assert refused(system, coupon, 2) == refused(system, coupon, 3) == "sold_out"

    raised = change(system, coupon, quantity=3)

    assert (raised["quantity"], raised["remaining"], raised["state"]) == (3, 2, "open")
    assert [system.final(accepted(system, coupon, user))["sequence"] for user in (2, 3)] == [2, 3]
    assert refused(system, coupon, 4) == "sold_out"


def test_a_raise_serves_those_on_standby_first(system: System) -> None:
    """P5: nobody retries meanwhile; the new seat is given at once to the one who waits behind a held seat."""
    coupon = system.make_coupon(quantity=1, waitlist=2)
    with frozen(system, "worker"):
        failing = accepted(system, coupon, 1, fault="22012 1")
        first, second = accepted(system, coupon, 2), accepted(system, coupon, 3)
        system.eventually(lambda: system.standing(second)["state"] == "standby")

        change(system, coupon, quantity=2)

        assert [system.standing(one)["state"] for one in (failing, first, second)] == ["retrying", "issued", "standby"]
    assert (system.final(failing)["sequence"], system.final(first)["sequence"]) == (2, 1)
    page = system.final(second)
    assert (page["state"], page["code"]) == ("refused", "sold_out")


@pytest.mark.parametrize("state", ["paused", "closed"])
def test_the_gate_refuses_at_once(system: System, state: str) -> None:
    """Section 4: the request after the answer is refused; what was accepted before is issued; `open` ends it."""
    coupon = system.make_coupon(quantity=5)
    before = accepted(system, coupon, 1)
    system.final(before)

    assert change(system, coupon, state=state)["state"] == state

    assert refused(system, coupon, 2) == state
    assert system.http.get(f"/coupons/{coupon}").json()["state"] == state
    assert change(system, coupon, state="open")["state"] == "open"
    assert system.final(accepted(system, coupon, 2))["sequence"] == 2


def test_the_window_moves(system: System) -> None:
    """Section 4: a later opening and an earlier close are judged by the next request; null takes a moment away."""
    coupon = system.make_coupon(quantity=5)

    assert change(system, coupon, opens_at="2099-01-01T00:00:00Z")["state"] == "scheduled"
    assert refused(system, coupon, 1) == "not_open"
    assert change(system, coupon, opens_at=None, closes_at="2020-01-01T00:00:00+09:00")["state"] == "closed"
    assert refused(system, coupon, 1) == "closed"
    assert change(system, coupon, closes_at=None)["state"] == "open"

    assert system.final(accepted(system, coupon, 1))["state"] == "issued"


@pytest.mark.parametrize(
    ("state", "answers"),
    [("closed", [("issued", None), ("refused", "closed")]), ("paused", [("issued", None), ("issued", None)])],
)
def test_what_lies_undecided_in_the_log_hears_of_a_close_only(
    system: System, state: str, answers: list[tuple[str, str | None]]
) -> None:
    """ADR 0011: a close refuses what the issuer has not decided yet, a pause lets it pass; both may ask again."""
    coupon = system.make_coupon(quantity=5)
    decided = accepted(system, coupon, 1)
    system.final(decided)
    with frozen(system, "issuer"):
        undecided = accepted(system, coupon, 2)
        change(system, coupon, state=state)

    pages = [system.final(one) for one in (decided, undecided)]

    assert [(page["state"], page["code"]) for page in pages] == answers
    system.eventually(lambda: system.receiver.states(undecided) == {answers[1][0]})
    change(system, coupon, state="open")
    assert system.final(accepted(system, coupon, 3))["state"] == "issued"


def test_who_was_refused_by_a_close_may_ask_again(system: System) -> None:
    """Section 3: a seat comes back on refused for any reason but sold out."""
    coupon = system.make_coupon(quantity=5)
    with frozen(system, "issuer"):
        undecided = accepted(system, coupon, 1)
        change(system, coupon, state="closed")
    assert system.final(undecided)["code"] == "closed"
    change(system, coupon, state="open")

    again = system.eventually(
        lambda: answer if (answer := system.ask(coupon, 1)) and answer.status_code == 202 else None
    )

    assert system.final(again.json()["request_id"])["state"] == "issued"


def test_a_quantity_below_what_is_live_is_refused(system: System) -> None:
    """P1: issued and held both count; the coupon is as it was, and the number itself is allowed."""
    coupon = system.make_coupon(quantity=5)
    with frozen(system, "worker"):
        failing = accepted(system, coupon, 1, fault="22012 1")
        system.final(accepted(system, coupon, 2))

        answer = system.http.patch(f"/coupons/{coupon}", json={"quantity": 1})

        assert_problem(answer, 409, "quantity_below_live")
        assert system.http.get(f"/coupons/{coupon}").json()["quantity"] == 5
        assert change(system, coupon, quantity=2)["remaining"] == 0
    assert system.final(failing)["state"] == "issued"
    assert refused(system, coupon, 3) == "sold_out"


def test_a_window_that_ends_before_it_begins_is_refused(system: System) -> None:
    """Section 4: what is sent does not fit what is there."""
    coupon = system.make_coupon(quantity=1, opens_at="2030-01-01T00:00:00Z")

    answer = system.http.patch(f"/coupons/{coupon}", json={"closes_at": "2029-01-01T00:00:00Z"})

    assert_problem(answer, 409, "window")


def test_bad_changes_are_problems(system: System) -> None:
    """Each is refused as invalid, and the coupon is as it was."""
    coupon = system.make_coupon(quantity=1)
    before = system.http.get(f"/coupons/{coupon}").json()

    for body in _BAD_CHANGES:
        assert_problem(system.http.patch(f"/coupons/{coupon}", content=body, headers=_JSON), 422, "invalid")

    assert system.http.get(f"/coupons/{coupon}").json() == before
    assert system.count(_CHANGES, id=coupon) == 1
    assert_problem(system.http.patch(f"/coupons/{coupon}", content=b"{}"), 415, "unsupported_media_type")


def test_a_coupon_that_is_not_there_cannot_be_changed(system: System) -> None:
    """An id that was never given is 404, a spelling that is none 422."""
    assert_problem(system.http.patch(f"/coupons/{2**62}", json={"quantity": 5}), 404, "unknown_coupon")
    assert_problem(system.http.patch("/coupons/01", json={"quantity": 5}), 422, "invalid")


def test_a_repeat_changes_nothing(system: System) -> None:
    """Section 4: a change that is sent again, and one that names nothing, are answered and leave no trace."""
    coupon = system.make_coupon(quantity=5)
    values = {"quantity": 7, "waitlist": 1, "state": "paused", "closes_at": "2099-01-01T00:00:00Z"}

    first, second, nothing = (change(system, coupon, **sent) for sent in (values, values, {}))

    assert first == second == nothing
    assert system.count(_CHANGES, id=coupon) == 2


def test_a_change_without_valkey_is_heard_of_afterwards(system: System) -> None:
    """P6: stored and answered at once; the gate, which knew the old values, begins anew with its server."""
    coupon = system.make_coupon(quantity=5)
    system.stack.stop("valkey")
    try:
        assert change(system, coupon, state="paused")["state"] == "paused"
        assert system.count(f"{_CHANGES} AND published_at IS NULL", id=coupon) == 1
    finally:
        system.stack.start("valkey")
    users = count(1)
    system.eventually(lambda: system.press(coupon, next(users)).json().get("code") == "paused")
    system.eventually(lambda: system.count(f"{_CHANGES} AND published_at IS NULL", id=coupon) == 0)


def test_the_proof_of_one_coupon(system: System) -> None:
    """Section 4: the endpoint reads the coupon's own records and rows, no others', and says what it found."""
    coupon, other = system.make_coupon(quantity=2), system.make_coupon(quantity=1)
    for request_id in [accepted(system, coupon, user) for user in (1, 2)] + [accepted(system, other, 1)]:
        system.final(request_id)
    system.produce(coupon, b"poison")

    answer = system.http.get(f"/coupons/{coupon}/verification")

    assert answer.status_code == 200
    proof = answer.json()
    assert proof["ok"] is True
    assert {check["promise"] for check in proof["checks"]} == {"P1", "P2", "P3", "P4", "P5"}
    assert all(check["ok"] and check["must_be_zero"] for check in proof["checks"])
    numbers = {check["what"]: check["numbers"] for check in proof["checks"]}
    assert (numbers["never over-issued"]["coupons"], numbers["never over-issued"]["issued"]) == (1, 2)
    assert numbers["nothing lost in the log"]["records"] == 2


def test_the_proof_of_one_coupon_finds_what_is_wrong_with_it(system: System) -> None:
    """P4: a row that names another request than its record is said; the proof of another coupon does not mind."""
    coupon, other = system.make_coupon(quantity=1), system.make_coupon(quantity=1)
    name = accepted(system, coupon, 1)
    system.final(name)
    rename(system, name, "another")
    try:
        proofs = [system.http.get(f"/coupons/{one}/verification").json() for one in (coupon, other)]
    finally:
        rename(system, "another", name)

    assert [proof["ok"] for proof in proofs] == [False, True]
    assert [check["numbers"]["contradicted"] for check in proofs[0]["checks"] if not check["ok"]] == [1]


def test_a_coupon_that_is_not_there_has_no_proof(system: System) -> None:
    """An id that was never given is 404."""
    assert_problem(system.http.get(f"/coupons/{2**62}/verification"), 404, "unknown_coupon")


def change(system: System, coupon: int, **values: Any) -> dict[str, Any]:
    """What a change is answered with."""
    answer = system.http.patch(f"/coupons/{coupon}", json=values)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def accepted(system: System, coupon: int, user: int, fault: str | None = None) -> str:
    """The request id of a request that has to be accepted."""
    return str(_asked(system, coupon, user, 202, fault).json()["request_id"])


def refused(system: System, coupon: int, user: int) -> str:
    """The code with which a request is refused at the gate."""
    return str(_asked(system, coupon, user, 409, None).json()["code"])


def _asked(system: System, coupon: int, user: int, status: int, fault: str | None) -> httpx.Response:
    answer = system.ask(coupon, user, fault)
    assert answer is not None
    assert answer.status_code == status, answer.text
    return answer


def rename(system: System, request_id: str, name: str) -> None:
    """Writes another request id into a row, past all code of the service."""
    with system.store.begin() as tx:
        tx.execute(
            text("UPDATE requests SET request_id = :name WHERE request_id = :id"), {"name": name, "id": request_id}
        )


@contextmanager
def frozen(system: System, name: str) -> Iterator[None]:
    """The process stands still as long as the block runs."""
    pid = system.stack.pid(name)
    os.killpg(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(pid, signal.SIGCONT)
