"""Lists of dead letters are small, however large their records and errors are."""

import re

import msgspec
import pytest
from sqlalchemy import Engine, text

from service.api.schemas.dead_letters import DeadLetterPage, dead_letter_view, summary_view
from service.domain.dead_letter import DeadLetterFilter
from service.domain.errors import Cancelled
from service.limits import MAX_ACTIONS_SHOWN, MAX_ERROR_LENGTH, MAX_LISTED_ERROR_LENGTH, MAX_PAGE_SIZE, MAX_REPLAY_BYTES
from service.usecases.replay import DeadLetterService
from tests.cancellations import CancelledAt

_RECORD_BYTES = 900_000


@pytest.fixture
def large(store: Engine, log_id: int) -> None:
    """Store a page of poison records of 0.9 MB, whose errors are as long as errors may be."""
    with store.begin() as tx:
        tx.execute(text("SET LOCAL statement_timeout = 0"))
        tx.execute(
            text(
                'INSERT INTO dead_letters (log_id, partition, "offset", value, headers, appended_at, code, attempts,'
                " first_error, error_type, error_message)"
                " SELECT :log, 0, number, CAST(repeat('a', :bytes) AS bytea), '[]', now(), 'poison', 0,"
                "  repeat(chr(1), :length), 'E', repeat(chr(1), :length)"
                " FROM generate_series(1, :count) AS number"
            ),
            {"log": log_id, "bytes": _RECORD_BYTES, "length": MAX_ERROR_LENGTH, "count": MAX_PAGE_SIZE},
        )


@pytest.mark.usefixtures("large")
def test_the_largest_page_has_at_most_two_megabytes(
    dead_letter_service: DeadLetterService, statements: list[str]
) -> None:
    """Records and long errors are in the single dead letter only; the query of a page does not read them."""
    found = dead_letter_service.list_page(DeadLetterFilter(), None, MAX_PAGE_SIZE)
    body = msgspec.json.encode(DeadLetterPage([*map(summary_view, found)], None))

    (query,) = [statement for statement in statements if "dead_letters" in statement]
    assert not re.search(r"\*|\b(key|value|headers)\b", query)
    assert len(found) == MAX_PAGE_SIZE
    assert {len(one.last_error) for one in found} == {MAX_LISTED_ERROR_LENGTH}
    assert len(body) < 2_000_000


@pytest.mark.usefixtures("large")
def test_one_dead_letter_has_its_record_once(dead_letter_service: DeadLetterService) -> None:
    """In base64; the text of a value that is too long for a request is not repeated beside it."""
    view = dead_letter_view(*dead_letter_service.get(1))

    assert view.record.text is None
    assert len(msgspec.json.encode(view)) < 2 * _RECORD_BYTES


@pytest.mark.usefixtures("large")
def test_one_dead_letter_has_its_latest_actions(dead_letter_service: DeadLetterService, store: Engine) -> None:
    """An audit trail that has grown for years does not make a body large."""
    with store.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO dead_letter_actions (dead_letter_id, action, acted_by, code)"
                " SELECT 1, 'replayed', 'cli', 'sold_out' FROM generate_series(1, 500)"
                " UNION ALL SELECT 1, 'replayed', 'api', 'sold_out'"
            )
        )

    _, actions = dead_letter_service.get(1)

    assert len(actions) == MAX_ACTIONS_SHOWN
    assert [action.acted_by for action in actions[-2:]] == ["cli", "api"]


@pytest.mark.usefixtures("large")
def test_a_replay_reads_a_bounded_number_of_bytes_at_once(
    dead_letter_service: DeadLetterService, statements: list[str]
) -> None:
    """A dry run is one transaction and covers what fits; a replay that is cancelled ends between two batches."""
    fitting = MAX_REPLAY_BYTES // _RECORD_BYTES

    dry = dead_letter_service.replay_many(DeadLetterFilter(), MAX_PAGE_SIZE, dry_run=True)
    statements.clear()
    with pytest.raises(Cancelled):
        dead_letter_service.replay_many(DeadLetterFilter(), MAX_PAGE_SIZE, dry_run=False, cancellation=CancelledAt(2))

    assert len(dry) == fitting
    assert sum("FOR UPDATE" in statement for statement in statements) == 2
