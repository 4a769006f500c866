"""The demo's three stories: found where they happened, reported in words, and a failed check where they are missing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from demo import stories
from demo.checks import demo_checks
from demo.operator_api import Replay, ReplayOutcome
from demo.result import SaleResult
from demo.sale import FAILS_ALWAYS, IssuanceRequest
from demo.stories import held_seats, reassigned_seats, replayed_request
from demo.system_state import RequestRow
from tests.unit.small_sale import DEAD_INDEX, REPLAY, REPLAYED_ROW, ROWS, changed, small_sale, with_rows

HELD, REASSIGNED, REPLAYED = STORIES = (
    "a request that failed kept its seat",
    "released seats went to standby",
    "a replay did what its dry run predicted",
)


@pytest.fixture
def result() -> SaleResult:
    """A small sale in which all three happened."""
    return small_sale()


def _failed(result: SaleResult) -> list[str]:
    return [check.what for check in demo_checks(result) if check.what in STORIES and not check.ok]


def _text(result: SaleResult) -> str:
    return "\n".join(text for _, text in stories.describe_stories(result))


def _users(rows: Sequence[RequestRow]) -> list[int]:
    return [row.user_id for row in rows]


def test_a_sale_in_which_all_three_happened_passes(result: SaleResult) -> None:
    assert [check.what for check in demo_checks(result)][-3:] == [HELD, REASSIGNED, REPLAYED]
    assert _failed(result) == []


def test_each_story_is_reported_with_its_facts(result: SaleResult) -> None:
    text = _text(result)
    assert "The request of user 2 failed at attempt 1; its status was `retrying`." in text
    assert "1 later requests were issued other seats; none got `sold_out`." in text
    assert "Attempt 2 issued the seat that was held for it, as number 3." in text
    assert "The request of user 3 failed in all 3 attempts and is dead letter 6." in text
    assert "to user 4, first on standby, as number 4; its status had been `standby`." in text
    assert "Dry run with 4 seats: dead letter 6 would be refused (sold_out)." in text
    assert "Dry run with 5 seats: dead letter 6 would be issued." in text
    assert "replayed dead letter 6: the request of user 3, dead after 3 attempts, is issued at attempt 4" in text
    assert "as number 5. The webhook delivered dead, then issued." in text


def test_a_sale_without_faults_says_so_and_has_no_story_to_check(result: SaleResult) -> None:
    healthy = replace(result, requests=[request._replace(fault=None) for request in result.requests])
    assert not {check.what for check in demo_checks(healthy)} & set(STORIES)
    assert stories.NO_FAULTS in _text(healthy)


def test_the_most_overtaken_held_seat_comes_first(result: SaleResult) -> None:
    later = ROWS[1]._replace(request_id="r6", user_id=6, offset=6, sequence=5)
    statuses = {**result.statuses, ("r6", "retrying"): result.statuses["r2", "retrying"]}
    held = held_seats(replace(with_rows(result, [later, *ROWS]), statuses=statuses))
    assert [(story.row.user_id, story.overtaken_by) for story in held] == [(2, 1), (6, 0)]


def test_a_held_seat_whose_status_was_not_observed_is_missing(result: SaleResult) -> None:
    unobserved = replace(result, statuses={("r4", "standby"): result.statuses["r4", "standby"]})
    assert _failed(unobserved) == [HELD]
    assert stories.MISSING in _text(unobserved)


def test_a_held_seat_that_delayed_all_later_requests_fails(result: SaleResult) -> None:
    rows = changed(changed(ROWS, 1, sequence=2), 2, sequence=3)
    assert _failed(with_rows(result, rows)) == [HELD]


def test_sold_out_while_a_seat_was_held_fails(result: SaleResult) -> None:
    rows = changed(ROWS, 5, decided_at=ROWS[0].decided_at)
    assert _failed(with_rows(result, rows)) == [HELD]
    assert "1 got `sold_out`" in _text(with_rows(result, rows))


def test_sold_out_while_any_seat_was_held_fails(result: SaleResult) -> None:
    last = ROWS[1]._replace(request_id="r6", user_id=6, offset=6, sequence=5, decided_at=REPLAYED_ROW.decided_at)
    statuses = {**result.statuses, ("r6", "retrying"): result.statuses["r2", "retrying"]}
    assert _failed(replace(with_rows(result, [*ROWS, last]), statuses=statuses)) == [HELD]


TOGETHER = [
    *ROWS[:DEAD_INDEX],
    ROWS[DEAD_INDEX]._replace(request_id="r7", user_id=7, offset=3),
    ROWS[DEAD_INDEX]._replace(offset=4),
    ROWS[4]._replace(offset=5),
    ROWS[4]._replace(request_id="r8", user_id=8, offset=6, sequence=5),
    ROWS[5]._replace(offset=7),
]


def _with_two_dead(result: SaleResult, rows: Sequence[RequestRow]) -> SaleResult:
    return replace(with_rows(result, rows), requests=[*result.requests, IssuanceRequest(7, 0, FAILS_ALWAYS)])


def test_requests_that_die_together_hand_on_their_seats_in_order(result: SaleResult) -> None:
    two = _with_two_dead(result, TOGETHER)
    assert [_users(story[:2]) for story in reassigned_seats(two)] == [[7, 4], [3, 8]]
    assert _failed(two) == []
    assert "Likewise from user 3 to user 8." in _text(two)


def test_one_seat_of_two_that_was_not_reassigned_fails(result: SaleResult) -> None:
    rows = changed(TOGETHER, 6, state="refused", code="sold_out", sequence=None)
    assert _failed(_with_two_dead(result, rows)) == [REASSIGNED]


def test_a_seat_that_did_not_go_to_standby_fails(result: SaleResult) -> None:
    moment = ROWS[DEAD_INDEX].decided_at
    assert moment is not None
    read_later = with_rows(result, changed(ROWS, 4, decided_at=moment + timedelta(microseconds=1)))
    removed = with_rows(result, [*ROWS[:4], *ROWS[5:]])
    assert _failed(read_later) == _failed(removed) == [REASSIGNED]
    assert stories.MISSING in _text(removed)


def test_a_seat_that_did_not_go_to_the_lowest_on_standby_fails(result: SaleResult) -> None:
    rows = changed(changed(ROWS, 4, offset=5), 5, offset=4)
    assert _failed(with_rows(result, rows)) == [REASSIGNED]


def test_a_standby_whose_status_was_not_observed_fails(result: SaleResult) -> None:
    assert _failed(replace(result, statuses={("r2", "retrying"): result.statuses["r2", "retrying"]})) == [REASSIGNED]


def test_a_missing_replay_fails(result: SaleResult) -> None:
    left_out = replace(result, replay=None, after_replay=None)
    no_dead_letter = replace(
        result,
        replay=REPLAY._replace(dry_run_sold_out=[], dry_run_raised=[], replayed=None),
        after_replay=result.after_sale,
    )
    assert _failed(left_out) == _failed(no_dead_letter) == [REPLAYED]
    assert stories.MISSING in _text(left_out)


REFUSED = ReplayOutcome(6, "r3", "refused", "sold_out")


@pytest.mark.parametrize(
    "replay",
    [
        REPLAY._replace(dry_run_sold_out=REPLAY.dry_run_raised),
        REPLAY._replace(dry_run_sold_out=[]),
        REPLAY._replace(dry_run_raised=[REFUSED]),
        REPLAY._replace(dry_run_raised=[*REPLAY.dry_run_raised, ReplayOutcome(7, "r7", "issued", None)]),
        REPLAY._replace(replayed=REFUSED),
        REPLAY._replace(raised=REPLAY.sold_out),
        REPLAY._replace(raised=msgspec.structs.replace(REPLAY.raised, standby=1)),
    ],
)
def test_a_replay_other_than_its_dry_run_fails(result: SaleResult, replay: Replay) -> None:
    assert _failed(replace(result, replay=replay)) == [REPLAYED]


@pytest.mark.parametrize(
    "values", [{"state": "refused"}, {"attempts": 3}, {"sequence": 6}, ROWS[DEAD_INDEX]._asdict(), {"request_id": "r7"}]
)
def test_a_replay_with_another_result_fails(result: SaleResult, values: dict[str, object]) -> None:
    after_replay = result.final._replace(rows=changed(ROWS, DEAD_INDEX, **(REPLAYED_ROW._asdict() | values)))
    assert _failed(replace(result, after_replay=after_replay)) == [REPLAYED]


def test_a_refused_replay_is_reported_as_refused(result: SaleResult) -> None:
    refused = changed(ROWS, DEAD_INDEX, state="refused", code="sold_out", sequence=None)
    text = _text(replace(result, after_replay=result.final._replace(rows=refused)))
    assert "is refused at attempt 3. The webhook delivered dead, then issued." in text


def test_a_replay_of_a_request_that_was_not_dead_fails(result: SaleResult) -> None:
    rows = changed(ROWS, DEAD_INDEX, state="refused", code="sold_out")
    assert _failed(with_rows(result, rows)) == [REASSIGNED, REPLAYED]


def test_a_replay_that_changed_another_request_fails(result: SaleResult) -> None:
    after_replay = result.final._replace(rows=changed(result.final.rows, 0, sequence=2))
    assert _failed(replace(result, after_replay=after_replay)) == [REPLAYED]


@pytest.mark.parametrize("states", [["dead"], ["issued"], ["issued", "dead"], []])
def test_a_replay_with_other_notices_fails(result: SaleResult, states: list[str]) -> None:
    result.receiver.decisions = Counter(("r3", state) for state in states)
    assert _failed(result) == [REPLAYED]


def test_the_notices_of_a_replayed_request_are_in_order(result: SaleResult) -> None:
    story = replayed_request(result)
    assert story is not None
    assert (story.before, story.after, story.notices) == (ROWS[DEAD_INDEX], REPLAYED_ROW, ["dead", "issued"])
