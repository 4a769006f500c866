"""Three stories of the sale, found in rows, statuses and notices: a held seat, a reassigned seat, a replay."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from demo.operator_api import ReplayOutcome
from demo.result import SaleResult
from demo.system_state import RequestRow, RequestStatus

NO_FAULTS = "No request was made to fail: the biggest coupon has too few seats, or too few users request it."
MISSING = "It did not happen in this sale."


class HeldSeat(NamedTuple):
    """A request that failed, kept its seat, and was issued at a later attempt."""

    row: RequestRow
    status: RequestStatus
    #: later requests in the log that were issued first
    overtaken_by: int
    #: requests that were refused `sold_out` after a 202, before this one was issued
    sold_out: int


class ReassignedSeat(NamedTuple):
    """The released seat of a dead request, and the request with the lowest offset on standby, which got it."""

    dead: RequestRow
    successor: RequestRow
    #: None: no status was read while the successor was on standby
    status: RequestStatus | None


class ReplayedRequest(NamedTuple):
    """A dead request before and after its replay, and the states that the webhook delivered, in order."""

    before: RequestRow
    after: RequestRow
    notices: Sequence[str]


def held_seats(result: SaleResult) -> list[HeldSeat]:
    """Return the held seats whose status was observed as `retrying`, the most overtaken one first."""
    stories = [
        _held_seat(row, status, result.after_sale.rows)
        for row in result.after_sale.rows
        if row.state == "issued" and row.attempts > 1 and (status := result.statuses.get((row.request_id, "retrying")))
    ]
    return sorted(stories, key=lambda story: story.overtaken_by, reverse=True)


def _held_seat(row: RequestRow, status: RequestStatus, rows: Sequence[RequestRow]) -> HeldSeat:
    others = [other for other in rows if other.coupon_id == row.coupon_id]
    overtaken_by = sum(
        1
        for other in others
        if other.offset > row.offset and other.sequence and row.sequence and other.sequence < row.sequence
    )
    sold_out = sum(
        1
        for other in others
        if other.code == "sold_out" and other.decided_at and row.decided_at and other.decided_at < row.decided_at
    )
    return HeldSeat(row, status, overtaken_by, sold_out)


def reassigned_seats(result: SaleResult) -> list[ReassignedSeat]:
    """Return the seats that were released and reassigned.

    One transaction does both, so the two rows have the same decided_at.
    """
    rows = sorted(result.after_sale.rows, key=lambda row: row.offset)
    dead_rows: dict[tuple[int, datetime], list[RequestRow]] = defaultdict(list)
    for row in rows:
        if row.code == "exhausted" and row.decided_at:
            dead_rows[row.coupon_id, row.decided_at].append(row)
    return [
        ReassignedSeat(dead, successor, result.statuses.get((successor.request_id, "standby")))
        for (coupon_id, moment), together in dead_rows.items()
        for dead, successor in zip(together, _undecided_at(moment, coupon_id, rows), strict=False)
        if (successor.state, successor.decided_at) == ("issued", moment)
    ]


def _undecided_at(moment: datetime, coupon_id: int, rows: Sequence[RequestRow]) -> list[RequestRow]:
    """Return a coupon's requests without a failure that were undecided until then: on standby, then not yet read."""
    return [
        row
        for row in rows
        if row.coupon_id == coupon_id and row.attempts == 1 and row.decided_at and row.decided_at >= moment
    ]


def replayed_request(result: SaleResult) -> ReplayedRequest | None:
    """Return the request that the operator replayed; None if there was none, or none with a row."""
    if not (result.replay and result.replay.replayed):
        return None
    request_id = result.replay.replayed.request_id
    before = [row for row in result.after_sale.rows if row.request_id == request_id]
    after = [row for row in result.final.rows if row.request_id == request_id]
    if not (before and after):
        return None
    return ReplayedRequest(before[0], after[0], result.receiver.states(after[0].request_id))


def describe_stories(result: SaleResult) -> list[tuple[str, str]]:
    """Return title and text of each story; the text of a story that did not happen says so."""
    if not result.faults:
        return [("Failures", NO_FAULTS)]
    describers = {
        "A failed request keeps its seat": _describe_held_seat,
        "A dead request's seat goes to standby": _describe_reassigned_seats,
        "A dead letter is replayed": _describe_replay,
    }
    return [(title, " ".join(describer(result)) or MISSING) for title, describer in describers.items()]


def _describe_held_seat(result: SaleResult) -> Iterator[str]:
    for row, status, overtaken_by, sold_out in held_seats(result)[:1]:
        refused = f"{sold_out:,}" if sold_out else "none"
        yield f"The request of user {row.user_id} failed at attempt {status.attempts}; its status was `{status.state}`."
        yield f"Meanwhile {overtaken_by:,} later requests were issued other seats; {refused} got `sold_out`."
        yield f"Attempt {row.attempts} issued the seat that was held for it, as number {row.sequence:,}."


def _describe_reassigned_seats(result: SaleResult) -> Iterator[str]:
    """Describe one story in full, one with an observed status if there is one, and the others in short."""
    stories = sorted(reassigned_seats(result), key=lambda story: story.status is None)
    dead_letter_ids = {one.request_id: one.id for one in result.after_sale.dead_letters}
    for dead, successor, status in stories[:1]:
        observed = f"; its status had been `{status.state}`" if status else ""
        dead_letter_id = dead_letter_ids.get(dead.request_id)
        yield f"The request of user {dead.user_id} failed in all {dead.attempts} attempts"
        yield f"and is dead letter {dead_letter_id}."
        yield f"Its seat went to user {successor.user_id}, first on standby,"
        yield f"as number {successor.sequence:,}{observed}."
    if others := [f"from user {story.dead.user_id} to user {story.successor.user_id}" for story in stories[1:]]:
        yield f"Likewise {', '.join(others)}."


def _describe_replay(result: SaleResult) -> Iterator[str]:
    replay, story = result.replay, replayed_request(result)
    if not (replay and replay.replayed and story):
        return
    before, after, notices = story
    number = f" as number {after.sequence:,}" if after.sequence else ""
    yield f"Dry run with {replay.sold_out.quantity:,} seats: {_list_outcomes(replay.dry_run_sold_out)}."
    yield f"Dry run with {replay.raised.quantity:,} seats: {_list_outcomes(replay.dry_run_raised)}."
    yield f"Then the operator replayed dead letter {replay.replayed.id}: the request of user {after.user_id},"
    yield f"{before.state} after {before.attempts} attempts, is {after.state} at attempt {after.attempts}{number}."
    yield f"The webhook delivered {', then '.join(notices) or 'nothing'}."


def _list_outcomes(outcomes: Sequence[ReplayOutcome]) -> str:
    parts = []
    for name, group in groupby(outcomes, key=_outcome_name):
        ids = [str(outcome.id) for outcome in group]
        parts.append(f"dead letter{'s' if len(ids) > 1 else ''} {', '.join(ids)} would be {name}")
    return "; ".join(parts)


def _outcome_name(outcome: ReplayOutcome) -> str:
    state = outcome.state or "left"
    return f"{state} ({outcome.code})" if outcome.code else state
