"""The verdict on the three stories: each must have happened, and as it was promised."""

from demo.desk import Replay
from demo.findings import Findings
from demo.proof import Check
from demo.sale import FAILS_THRICE
from demo.story import Returned, handed_on, kept, returned


def checks(found: Findings) -> list[Check]:
    """A check for each story; none where nothing was made to fail, so that there is no story."""
    return [_kept(found), _handed_on(found), _returned(found)] if found.faults else []


def _kept(found: Findings) -> Check:
    stories = kept(found)
    numbers = {
        "seen_retrying": len(stories),
        "passed_by": stories[0].passed_by if stories else 0,
        "sold_out_meanwhile": max((story.sold_out for story in stories), default=0),
    }
    ok = numbers["passed_by"] > 0 and not numbers["sold_out_meanwhile"]
    return Check("demo", "a request that failed kept its seat", ok, numbers)


def _handed_on(found: Findings) -> Check:
    stories = handed_on(found)
    given_up = sum(1 for fault in found.faults.values() if fault == FAILS_THRICE)
    seen = sum(1 for story in stories if story.page)
    numbers = {"given_up": given_up, "to_the_lowest_on_standby": len(stories), "seen_on_standby": seen}
    return Check("demo", "seats given up went to standby", len(stories) == given_up and seen > 0, numbers)


def _returned(found: Findings) -> Check:
    story, changed = returned(found), set(found.sale.rows) ^ set(found.end.rows)
    numbers = {
        "would_be_issued": sum(1 for one in found.replay.rehearsed if one.state == "issued") if found.replay else 0,
        "rows_changed": len({row.request_id for row in changed}),
        "told": len(story.told) if story else 0,
    }
    ok = bool(story and found.replay and _as_rehearsed(found.replay) and _came_back(story, found.replay))
    return Check("demo", "a replay did what its dry run said", ok and numbers["rows_changed"] == 1, numbers)


def _as_rehearsed(replay: Replay) -> bool:
    """All would have been refused before; with one seat more, the first in line would get it, and it did."""
    refused = {(one.state, one.code) for one in (*replay.refused, *replay.rehearsed[1:])}
    issued = (replay.done and replay.done.state) == replay.rehearsed[0].state == "issued"
    return refused == {("refused", "sold_out")} and issued and not replay.raised.standby


def _came_back(story: Returned, replay: Replay) -> bool:
    """Told dead and then issued, at one attempt more, as the last of the raised quantity."""
    before, after, told = story
    issued = ("issued", before.attempts + 1, replay.raised.quantity)
    return (
        before.state == "dead"
        and (after.state, after.attempts, after.sequence) == issued
        and told == ["dead", "issued"]
    )
