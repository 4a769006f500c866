"""The demo's verdict: its own checks fail for each thing that is not as it was promised."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from demo import audit, proof
from demo.audit import Findings
from demo.history import Call, Outcome
from demo.receiver import Receiver
from demo.sale import FAILS_ONCE, FAILS_THRICE, Ask
from demo.table import percentile
from demo.view import Pending, Row

NOTHING = Pending(0, 0, 0, 0, 0)
FOREIGN_USER = 9
ROWS = [
    Row("r1", 1, 42, "issued", None, 1, datetime.now(UTC)),
    Row("r2", 2, 42, "issued", None, 2, datetime.now(UTC)),
    Row("r3", 3, 42, "dead", "exhausted", 3, datetime.now(UTC)),
    Row("r9", FOREIGN_USER, 42, "issued", None, 1, datetime.now(UTC)),
]


def _call(user_id: int) -> Call:
    return Call("issue", user_id, 42, 1.0, 2.0, 202, Outcome.ACCEPTED, None, f"r{user_id}")


@pytest.fixture
def found() -> Findings:
    """A small sale in which all went well."""
    receiver = Receiver()
    receiver.told.update((row.request_id, row.state) for row in ROWS)
    return Findings(
        asks=[Ask(1, 0), Ask(2, 0, FAILS_ONCE), Ask(3, 0, FAILS_THRICE)],
        calls=[_call(1), _call(2), _call(3)],
        coupons=[],
        pending=NOTHING,
        rows=ROWS,
        dead_letters=Counter(poison=5, exhausted=1),
        receiver=receiver,
        malformed=5,
        foreign_user=FOREIGN_USER,
    )


def _failed(found: Findings) -> list[str]:
    return [check.what for check in audit.checks(found) if not check.ok]


def test_a_sale_in_which_all_went_well_passes(found: Findings) -> None:
    assert _failed(found) == []


def test_a_request_that_is_not_final_is_found(found: Findings) -> None:
    for field in Pending._fields:
        assert _failed(replace(found, pending=NOTHING._replace(**{field: 1}))) == ["all accepted requests are final"]


def test_an_accepted_request_without_a_row_is_found(found: Findings) -> None:
    assert _failed(replace(found, calls=[*found.calls, _call(4)])) == ["all accepted requests are final"]


@pytest.mark.parametrize("told", [{("r1", "issued"): -1}, {("r1", "issued"): 1}, {("r1", "refused"): 1}])
def test_a_notice_too_few_too_many_or_wrong_is_found(found: Findings, told: dict[tuple[str, str], int]) -> None:
    found.receiver.told.update(told)
    found.receiver.told += Counter()  # drops what is zero
    assert _failed(found) == ["each was notified once"]


def test_a_forged_notice_is_found(found: Findings) -> None:
    found.receiver.forged = 1
    assert _failed(found) == ["each was notified once"]


@pytest.mark.parametrize(("at", "attempts"), [(0, 2), (1, 1), (1, 3), (2, 2)])
def test_a_retry_too_few_or_too_many_is_found(found: Findings, at: int, attempts: int) -> None:
    rows = [*ROWS[:at], ROWS[at]._replace(attempts=attempts), *ROWS[at + 1 :]]
    assert _failed(replace(found, rows=rows)) == ["what was made to fail did, nothing else"]


def test_a_request_made_to_fail_that_was_not_accepted_is_found(found: Findings) -> None:
    calls = [found.calls[0], found.calls[2]]
    assert _failed(replace(found, calls=calls)) == ["what was made to fail did, nothing else"]


@pytest.mark.parametrize("letters", [{"poison": 4, "exhausted": 1}, {"poison": 5}, {"poison": 5, "exhausted": 2}])
def test_dead_letters_other_than_expected_are_found(found: Findings, letters: dict[str, int]) -> None:
    assert _failed(replace(found, dead_letters=Counter(letters))) == ["each is a dead letter, nothing else"]


def test_a_foreign_record_that_was_not_issued_is_found(found: Findings) -> None:
    found.receiver.told.pop(("r9", "issued"))
    assert _failed(replace(found, rows=ROWS[:3])) == ["the Spring producer's record is issued"]


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
def test_the_proof_holds_only_if_the_command_and_each_check_say_so(status: int, output: bytes, holds: bool) -> None:
    checks = proof.understood(status, output, b"cannot start: why")
    assert all(check.ok for check in checks) is holds


def test_a_verification_that_ended_without_a_word_is_quoted() -> None:
    (check,) = proof.understood(2, b"", b"first line\ncannot start: why\n")
    assert "cannot start: why" in check.what


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([3.0], 0.99, 3.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0), (range(1, 101), 0.99, 99)],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], share: float, expected: float | None) -> None:
    assert percentile(values, share) == expected
