"""The demo's verdict: its own checks fail for each thing that is not as it was promised."""

from collections import Counter
from dataclasses import replace

import pytest

from demo import audit, proof
from demo.desk import Letter
from demo.findings import Findings
from demo.table import percentile
from demo.view import Pending
from tests.unit.small_sale import LETTERS, NOTHING, ROWS, call, changed, held, with_rows

CALLS = held().calls


@pytest.fixture
def found() -> Findings:
    """A small sale in which all went well."""
    return held()


def _failed(found: Findings) -> list[str]:
    return [check.what for check in audit.checks(found) if not check.ok]


def test_a_sale_in_which_all_went_well_passes(found: Findings) -> None:
    assert _failed(found) == []


@pytest.mark.parametrize("field", Pending._fields)
def test_what_is_not_final_is_found_after_the_sale_and_after_the_replay(found: Findings, field: str) -> None:
    pending = NOTHING._replace(**{field: 1})
    after = replace(found, after=found.end._replace(pending=pending))
    assert _failed(replace(found, sale=found.sale._replace(pending=pending))) == ["all accepted requests are final"]
    assert _failed(after) == ["all are final again after the replay"]


def test_an_accepted_request_without_a_row_is_found(found: Findings) -> None:
    assert _failed(replace(found, calls=[*CALLS, call(6)])) == [
        "all accepted requests are final",
        "all are final again after the replay",
    ]


@pytest.mark.parametrize(
    "told",
    [
        {("r1", "issued"): -1},
        {("r1", "issued"): 1},
        {("r1", "refused"): 1},
        # of what was brought back: as it was, and as it is
        {("r3", "dead"): -1},
        {("r3", "issued"): -1},
        {("r3", "issued"): 1},
    ],
)
def test_a_notice_too_few_too_many_or_wrong_is_found(found: Findings, told: dict[tuple[str, str], int]) -> None:
    found.receiver.told.update(told)
    found.receiver.told += Counter()  # drops what is zero
    assert _failed(found) == ["each decision was told once"]


def test_a_forged_notice_is_found(found: Findings) -> None:
    found.receiver.forged = 1
    assert _failed(found) == ["each decision was told once"]


@pytest.mark.parametrize(("at", "attempts"), [(0, 2), (1, 1), (1, 3), (3, 2)])
def test_a_retry_too_few_or_too_many_is_found(found: Findings, at: int, attempts: int) -> None:
    rows = changed(ROWS, at, attempts=attempts)
    assert _failed(with_rows(found, rows)) == ["what was made to fail did, nothing else"]


def test_a_request_made_to_fail_that_was_not_accepted_is_found(found: Findings) -> None:
    assert _failed(replace(found, calls=[CALLS[0], *CALLS[2:]])) == ["what was made to fail did, nothing else"]


REPLAYED, *POISON = held().end.letters


@pytest.mark.parametrize(
    "letters",
    [
        [REPLAYED, POISON[0]],
        [REPLAYED, *POISON, POISON[0]],
        POISON,
        # one that nobody has brought back, and one more than was made to fail
        LETTERS,
        [REPLAYED, *LETTERS],
    ],
)
def test_dead_letters_other_than_expected_are_found(found: Findings, letters: list[Letter]) -> None:
    after = found.end._replace(letters=letters)
    assert _failed(replace(found, after=after)) == ["each is a dead letter, nothing else"]


def test_a_foreign_record_that_was_not_issued_is_found(found: Findings) -> None:
    found.receiver.told.pop(("r9", "issued"))
    assert _failed(with_rows(found, ROWS[1:])) == ["the Spring producer's record is issued"]


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
