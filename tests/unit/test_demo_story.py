"""The demo's three stories: found where they happened, told as they were, and missed where they did not happen."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from rich.console import Console

from demo import tale, verdict
from demo.desk import Replay, Replayed
from demo.findings import Findings
from demo.sale import FAILS_THRICE, Ask
from demo.story import handed_on, kept, returned
from demo.view import Row
from tests.unit.small_sale import BACK, DEAD, REPLAY, ROWS, changed, held, with_rows

KEPT, HANDED_ON, RETURNED = (
    "a request that failed kept its seat",
    "seats given up went to standby",
    "a replay did what its dry run said",
)


@pytest.fixture
def found() -> Findings:
    """A small sale in which all three happened."""
    return held()


def _failed(found: Findings) -> list[str]:
    return [check.what for check in verdict.checks(found) if not check.ok]


def _told(found: Findings) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tale.told(found))
    return capture.get()


def _users(rows: Sequence[Row]) -> list[int]:
    return [row.user_id for row in rows]


def test_a_sale_in_which_all_happened_passes(found: Findings) -> None:
    assert [check.what for check in verdict.checks(found)] == [KEPT, HANDED_ON, RETURNED]
    assert _failed(found) == []


def test_each_is_told_with_what_the_system_said(found: Findings) -> None:
    said = _told(found)
    assert "The request of user 2, offset 1, failed at attempt 1; its page said `retrying`." in said
    assert "1 behind it in the log were issued, from other seats; nobody heard sold_out." in said
    assert "User 3 died after 3 attempts: dead letter 6." in said
    assert "user 4, the lowest on standby, as number 4; that page had said `standby`." in said
    assert "A dry run at 4 seats. Dead letters: 6 would be refused (sold_out)." in said
    assert "Raised to 5, 0 on standby: 6 would be issued." in said
    assert "is issued at attempt 4 as number 5; was told dead, then issued." in said


def test_a_sale_without_failures_says_so_and_has_nothing_to_check(found: Findings) -> None:
    calm = replace(found, asks=[ask._replace(fault=None) for ask in found.asks])
    assert verdict.checks(calm) == []
    assert tale.NOTHING in _told(calm)


def test_of_the_held_the_one_is_told_that_most_were_issued_before(found: Findings) -> None:
    later = ROWS[1]._replace(request_id="r6", user_id=6, offset=6, sequence=5)
    pages = {**found.pages, ("r6", "retrying"): found.pages["r2", "retrying"]}
    stories = kept(replace(with_rows(found, [later, *ROWS]), pages=pages))
    assert [(story.row.user_id, story.passed_by) for story in stories] == [(2, 1), (6, 0)]


def test_a_held_seat_that_nobody_saw_is_missing(found: Findings) -> None:
    unseen = replace(found, pages={("r4", "standby"): found.pages["r4", "standby"]})
    assert _failed(unseen) == [KEPT]
    assert tale.MISSING in _told(unseen)


def test_one_that_held_everybody_up_behind_it_is_found(found: Findings) -> None:
    rows = changed(changed(ROWS, 1, sequence=2), 2, sequence=3)
    assert _failed(with_rows(found, rows)) == [KEPT]


def test_sold_out_said_while_a_seat_was_held_is_found(found: Findings) -> None:
    rows = changed(ROWS, 5, decided_at=ROWS[0].decided_at)
    assert _failed(with_rows(found, rows)) == [KEPT]
    assert "1 heard sold_out" in _told(with_rows(found, rows))


def test_sold_out_said_while_any_seat_was_held_is_found(found: Findings) -> None:
    last = ROWS[1]._replace(request_id="r6", user_id=6, offset=6, sequence=5, decided_at=BACK.decided_at)
    pages = {**found.pages, ("r6", "retrying"): found.pages["r2", "retrying"]}
    assert _failed(replace(with_rows(found, [*ROWS, last]), pages=pages)) == [KEPT]


TOGETHER = [
    *ROWS[:DEAD],
    ROWS[DEAD]._replace(request_id="r7", user_id=7, offset=3),
    ROWS[DEAD]._replace(offset=4),
    ROWS[4]._replace(offset=5),
    ROWS[4]._replace(request_id="r8", user_id=8, offset=6, sequence=5),
    ROWS[5]._replace(offset=7),
]


def _two_die(found: Findings, rows: Sequence[Row]) -> Findings:
    return replace(with_rows(found, rows), asks=[*found.asks, Ask(7, 0, FAILS_THRICE)])


def test_those_who_die_together_hand_on_in_order(found: Findings) -> None:
    two = _two_die(found, TOGETHER)
    assert [_users(story[:2]) for story in handed_on(two)] == [[7, 4], [3, 8]]
    assert _failed(two) == []
    assert "Likewise from 3 to 8." in _told(two)


def test_one_seat_of_two_that_was_not_handed_on_is_found(found: Findings) -> None:
    rows = changed(TOGETHER, 6, state="refused", code="sold_out", sequence=None)
    assert _failed(_two_die(found, rows)) == [HANDED_ON]


def test_a_seat_that_went_to_nobody_on_standby_is_found(found: Findings) -> None:
    moment = ROWS[DEAD].decided_at
    assert moment is not None
    read_later = with_rows(found, changed(ROWS, 4, decided_at=moment + timedelta(microseconds=1)))
    gone = with_rows(found, [*ROWS[:4], *ROWS[5:]])
    assert _failed(read_later) == _failed(gone) == [HANDED_ON]
    assert tale.MISSING in _told(gone)


def test_a_seat_that_went_to_another_than_the_lowest_is_found(found: Findings) -> None:
    rows = changed(changed(ROWS, 4, offset=5), 5, offset=4)
    assert _failed(with_rows(found, rows)) == [HANDED_ON]


def test_a_standby_that_nobody_saw_is_found(found: Findings) -> None:
    assert _failed(replace(found, pages={("r2", "retrying"): found.pages["r2", "retrying"]})) == [HANDED_ON]


def test_a_replay_that_was_left_out_is_found(found: Findings) -> None:
    left_out = replace(found, replay=None, after=None)
    nothing_there = replace(found, replay=REPLAY._replace(refused=[], rehearsed=[], done=None), after=found.sale)
    assert _failed(left_out) == _failed(nothing_there) == [RETURNED]
    assert tale.MISSING in _told(left_out)


REFUSED = Replayed(6, "r3", "refused", "sold_out")


@pytest.mark.parametrize(
    "replay",
    [
        REPLAY._replace(refused=REPLAY.rehearsed),
        REPLAY._replace(refused=[]),
        REPLAY._replace(rehearsed=[REFUSED]),
        REPLAY._replace(rehearsed=[*REPLAY.rehearsed, Replayed(7, "r7", "issued", None)]),
        REPLAY._replace(done=REFUSED),
        REPLAY._replace(raised=REPLAY.sold_out),
        REPLAY._replace(raised=msgspec.structs.replace(REPLAY.raised, standby=1)),
    ],
)
def test_a_replay_other_than_its_dry_run_is_found(found: Findings, replay: Replay) -> None:
    assert _failed(replace(found, replay=replay)) == [RETURNED]


@pytest.mark.parametrize(
    "values", [{"state": "refused"}, {"attempts": 3}, {"sequence": 6}, ROWS[DEAD]._asdict(), {"request_id": "r7"}]
)
def test_a_replay_that_left_another_row_is_found(found: Findings, values: dict[str, object]) -> None:
    after = found.end._replace(rows=changed(ROWS, DEAD, **(BACK._asdict() | values)))
    assert _failed(replace(found, after=after)) == [RETURNED]


def test_a_replay_that_was_refused_is_told_as_it_was(found: Findings) -> None:
    refused = changed(ROWS, DEAD, state="refused", code="sold_out", sequence=None)
    said = _told(replace(found, after=found.end._replace(rows=refused)))
    assert "is refused at attempt 3; was told dead, then issued." in said


def test_a_replay_of_one_that_was_not_dead_is_found(found: Findings) -> None:
    rows = changed(ROWS, DEAD, state="refused", code="sold_out")
    assert _failed(with_rows(found, rows)) == [HANDED_ON, RETURNED]


def test_a_replay_that_changed_another_request_is_found(found: Findings) -> None:
    after = found.end._replace(rows=changed(found.end.rows, 0, sequence=2))
    assert _failed(replace(found, after=after)) == [RETURNED]


@pytest.mark.parametrize("told", [["dead"], ["issued"], ["issued", "dead"], []])
def test_a_replay_that_was_told_otherwise_is_found(found: Findings, told: list[str]) -> None:
    found.receiver.told = Counter(("r3", state) for state in told)
    assert _failed(found) == [RETURNED]


def test_what_is_brought_back_is_told_in_order(found: Findings) -> None:
    story = returned(found)
    assert story is not None
    assert (story.before, story.after, story.told) == (ROWS[DEAD], BACK, ["dead", "issued"])
