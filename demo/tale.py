"""The three stories in words, each from what the system itself says; one that did not happen is said to be missing."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.table import Table

from demo.desk import Replayed
from demo.findings import Findings
from demo.story import handed_on, kept, returned

NOTHING = "Nothing was made to fail: the biggest coupon has too few seats, or too few ask for it."
MISSING = "It did not happen in this sale."


def told(found: Findings) -> Table:
    """The stories as a table."""
    table = Table("what to see in it", "", show_lines=True)
    if not found.faults:
        table.add_row("failures", NOTHING)
        return table
    for name, lines in (("a held seat", _kept), ("a standby", _handed_on), ("a replay", _returned)):
        table.add_row(name, "\n".join(lines(found)) or MISSING)
    return table


def _kept(found: Findings) -> Iterator[str]:
    for row, page, passed_by, sold_out in kept(found)[:1]:
        heard = f"{sold_out:,}" if sold_out else "nobody"
        failed = f"failed at attempt {page.attempts}; its page said `{page.state}`"
        yield f"The request of user {row.user_id}, offset {row.offset}, {failed}."
        yield f"Meanwhile {passed_by:,} behind it in the log were issued, from other seats; {heard} heard sold_out."
        yield f"At attempt {row.attempts} it was issued the seat that was held for it, as number {row.sequence:,}."


def _handed_on(found: Findings) -> Iterator[str]:
    """One of them at length, one whose page was seen if there is such, the others in short."""
    stories = sorted(handed_on(found), key=lambda story: story.page is None)
    letters = {letter.request_id: letter.id for letter in found.sale.letters}
    for dead, heir, page in stories[:1]:
        said = f"; that page had said `{page.state}`" if page else ""
        yield f"User {dead.user_id} died after {dead.attempts} attempts: dead letter {letters.get(dead.request_id)}."
        yield f"The seat went to user {heir.user_id}, the lowest on standby, as number {heir.sequence:,}{said}."
    if others := [f"{story.dead.user_id} to {story.heir.user_id}" for story in stories[1:]]:
        yield f"Likewise from {', from '.join(others)}."


def _returned(found: Findings) -> Iterator[str]:
    replay, story = found.replay, returned(found)
    if not (replay and replay.done and story):
        return
    before, after, told = story
    number = f" as number {after.sequence:,}" if after.sequence else ""
    yield f"A dry run at {replay.sold_out.quantity:,} seats. Dead letters: {_listed(replay.refused)}."
    yield f"Raised to {replay.raised.quantity:,}, {replay.raised.standby} on standby: {_listed(replay.rehearsed)}."
    yield f"Replayed {replay.done.id}: user {after.user_id}, {before.state} after {before.attempts} attempts,"
    yield f"is {after.state} at attempt {after.attempts}{number}; was told {', then '.join(told) or 'nothing'}."


def _listed(some: Sequence[Replayed]) -> str:
    """Dead letters by what would come of them."""
    return "; ".join(
        f"{', '.join(str(one.id) for one in group)} would be {what}" for what, group in groupby(some, key=_what)
    )


def _what(one: Replayed) -> str:
    return f"{one.state or 'left'} ({one.code})" if one.code else one.state or "left"
