"""The demo's own checks and the result of `coupons verify`: each violation fails its check."""

from collections import Counter
from dataclasses import replace

import pytest

from demo.checks import Check, demo_checks, read_verification
from demo.operator_api import DeadLetter
from demo.report import promise_holds
from demo.result import SaleResult
from demo.system_state import Pending
from tests.unit.small_sale import DEAD_LETTERS, NOTHING_PENDING, ROWS, accepted, changed, small_sale, with_rows

ANSWERS = small_sale().answers
#: the sale has requests with injected faults, so the checks of the stories follow these
OWN = 6


@pytest.fixture
def result() -> SaleResult:
    """A small sale without a violation."""
    return small_sale()


def _failed(result: SaleResult) -> list[str]:
    return [check.what for check in demo_checks(result)[:OWN] if not check.ok]


def test_a_sale_without_a_violation_passes(result: SaleResult) -> None:
    assert _failed(result) == []


@pytest.mark.parametrize("field", Pending._fields)
def test_pending_work_fails_after_the_sale_and_after_the_replay(result: SaleResult, field: str) -> None:
    pending = NOTHING_PENDING._replace(**{field: 1})
    sale = replace(result, after_sale=result.after_sale._replace(pending=pending))
    replay = replace(result, after_replay=result.final._replace(pending=pending))
    assert _failed(sale) == ["all accepted requests are final"]
    assert _failed(replay) == ["all are final again after the replay"]


def test_an_accepted_request_without_a_row_fails(result: SaleResult) -> None:
    assert _failed(replace(result, answers=[*ANSWERS, accepted(6)])) == [
        "all accepted requests are final",
        "all are final again after the replay",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {("r1", "issued"): -1},
        {("r1", "issued"): 1},
        {("r1", "refused"): 1},
        # of the replayed request: one notice before the replay, one after it
        {("r3", "dead"): -1},
        {("r3", "issued"): -1},
        {("r3", "issued"): 1},
    ],
)
def test_a_missing_or_repeated_or_wrong_notice_fails(result: SaleResult, change: dict[tuple[str, str], int]) -> None:
    result.receiver.decisions.update(change)
    result.receiver.decisions += Counter()  # drops zero counts
    assert _failed(result) == ["each decision was sent in one notice"]


def test_a_forged_notice_fails(result: SaleResult) -> None:
    result.receiver.forged = 1
    assert _failed(result) == ["each decision was sent in one notice"]


@pytest.mark.parametrize(("index", "attempts"), [(0, 2), (1, 1), (1, 3), (3, 2)])
def test_a_missing_or_additional_retry_fails(result: SaleResult, index: int, attempts: int) -> None:
    rows = changed(ROWS, index, attempts=attempts)
    assert _failed(with_rows(result, rows)) == ["exactly the requests with an injected fault failed"]


def test_a_request_made_to_fail_but_not_accepted_fails(result: SaleResult) -> None:
    assert _failed(replace(result, answers=[ANSWERS[0], *ANSWERS[2:]])) == [
        "exactly the requests with an injected fault failed"
    ]


REPLAYED, *POISON = small_sale().final.dead_letters


@pytest.mark.parametrize(
    "dead_letters",
    [
        [REPLAYED, POISON[0]],
        [REPLAYED, *POISON, POISON[0]],
        POISON,
        # one that was not replayed, and one more than was made to fail
        DEAD_LETTERS,
        [REPLAYED, *DEAD_LETTERS],
    ],
)
def test_unexpected_dead_letters_fail(result: SaleResult, dead_letters: list[DeadLetter]) -> None:
    after_replay = result.final._replace(dead_letters=dead_letters)
    assert _failed(replace(result, after_replay=after_replay)) == [
        "the dead letters are exactly the malformed records and the requests that always fail"
    ]


def test_a_foreign_record_that_was_not_issued_fails(result: SaleResult) -> None:
    result.receiver.decisions.pop(("r9", "issued"))
    assert _failed(with_rows(result, ROWS[1:])) == ["the Spring producer's record is issued"]


OK = b'{"ok": true, "checks": [{"promise": "P1", "what": "w", "ok": true, "numbers": {"n": 1}}]}'


@pytest.mark.parametrize(
    ("status", "output", "holds"),
    [
        (0, OK, True),
        (1, OK, False),
        (0, OK.replace(b'"ok": true, "numbers"', b'"ok": false, "numbers"'), False),
        (1, OK.replace(b"true", b"false"), False),
        (2, b"", False),
        (0, b'{"ok": true, "checks": []}', False),
    ],
)
def test_the_verification_passes_only_if_the_command_and_each_check_passed(
    status: int, output: bytes, holds: bool
) -> None:
    checks = read_verification(status, output, b"error: why")
    assert all(check.ok for check in checks) is holds


def test_the_last_error_line_of_a_failed_verification_is_quoted() -> None:
    (check,) = read_verification(2, b"", b"first line\nerror: why\n")
    assert "error: why" in check.what


def _check(promise: str, *, ok: bool) -> Check:
    return Check(promise, "what", ok, {})


@pytest.mark.parametrize(
    ("checks", "holds"),
    [
        ([_check("P1", ok=True), _check("P1", ok=True), _check("P2", ok=False)], True),
        ([_check("P1", ok=True), _check("P1", ok=False)], False),
        ([_check("P2", ok=True)], False),
        ([_check("P1", ok=True), _check("P1–P5", ok=False)], False),
    ],
)
def test_a_promise_holds_only_if_it_was_checked_and_nothing_contradicts_it(checks: list[Check], holds: bool) -> None:
    assert promise_holds("P1", checks) is holds
