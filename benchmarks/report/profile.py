"""The page's section on profiles: code locations of each process's threads, by their share of the time."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.experiments.profiles import PRESENT, RUNNING
from benchmarks.figures import Figures, spread
from benchmarks.profiler import MAIN_THREAD

_MIN_SHARE = 0.02
_EXPLANATION = f"""\
The table shows where the threads of each process were under load, as py-spy saw it from outside: the function of this
project, the library that it called, the share of time in which the thread was there, and the share in which it was
running there. The rest of the time it waited. Two samplers measure the two shares, at different moments, so a running
share may exceed the other. Locations below {_MIN_SHARE:.0%} are left out. Threads other than the main one are left out
if they hardly ran. Function names are those of the measured commit.

The main function of an API is asyncio's event loop: it waits for sockets, or it is in the C code of uvloop and
httptools. If only a library is named, the stack has no function of this project: the thread or task started in a
library. `concurrent` in the issuer is the wait for the next batch.

A backlog of one coupon is one queue. One thread of the issuer decides batch after batch, under the coupon's lock, and
waits for the database. A record costs the CPU time of that thread plus the time of PostgreSQL: the query for earlier
decisions, the insert, the commit. PostgreSQL's insert limit contains only the insert and the commit. The main thread
reads the next batch meanwhile; it waits while the other thread decides, and until the database has committed.
"""


class LocationShare(NamedTuple):
    """Shares of the time in which a thread was at a code location, and was running there."""

    part: str
    thread: str
    location: str
    present: float
    running: float


def section(rounds: Sequence[Figures]) -> Iterator[str]:
    """Yield the lines of the section."""
    yield "## Where the time goes\n"
    yield _EXPLANATION
    yield "| process | thread | location | share of time | running |"
    yield "|---|---|---|---|---|"
    shown = _shown(rounds)
    by_share = sorted(shown, key=lambda each: -each.present)
    for part in dict.fromkeys(each.part for each in shown):
        for each in by_share:
            if each.part == part:
                cells = (part, each.thread, f"`{each.location}`", f"{each.present:.0%}", f"{each.running:.0%}")
                yield f"| {' | '.join(cells)} |"
    yield ""


def _shown(rounds: Sequence[Figures]) -> list[LocationShare]:
    """Return the locations that the table shows, in the order of the experiment."""
    locations = list(_locations(rounds))
    thread_ran: dict[tuple[str, str], float] = {}
    for each in locations:
        thread_ran[each.part, each.thread] = thread_ran.get((each.part, each.thread), 0.0) + each.running
    return [
        each
        for each in locations
        if each.present >= _MIN_SHARE
        and (each.thread == MAIN_THREAD or thread_ran[each.part, each.thread] >= 2 * _MIN_SHARE)
    ]


def _locations(rounds: Sequence[Figures]) -> Iterator[LocationShare]:
    for name in dict.fromkeys(name.partition(" ")[2] for figures in rounds for name in figures):
        part, _, rest = name.partition(" (")
        thread, _, location = rest.partition(") ")
        present, running = (
            # a location that is missing in a round had a share of 0
            spread([figures.get(f"{prefix} {name}", 0.0) for figures in rounds]).median
            for prefix in (PRESENT, RUNNING)
        )
        yield LocationShare(part, thread, location, present, running)
