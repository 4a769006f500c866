"""The page's section on where the time goes: places of each process's threads, by their share of it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.experiments.profiles import RAN, THERE
from benchmarks.figures import Figures, spread
from benchmarks.spying import MAIN

_LEAST = 0.02
_EXPLAINED = f"""\
Where the threads of each process were under load, by py-spy from outside: the function, the library that it was in, the
part of the time in which the thread was there, and in which it ran there; the rest it waited. (The two are counted by a
sampler each, which seldom look at the same moment.) Places below {_LEAST:.0%} are left out, and threads beside the main
one that hardly ran. An API's main function in asyncio is the event loop: it waits for sockets, or is in the C code of
uvloop and httptools. A place that is a library alone is a thread's or a task's own beginning: `concurrent`, in the
issuer, is the wait for the next poll.

A backlog of one coupon is one line: poll after poll is decided by a thread (`issuing`) that then waits for the
database, under the coupon's lock. A record costs what that thread computes and, after it, what PostgreSQL takes to look
up (`known`), insert and commit; the bare limit is the insert and commit alone. Reading, by the main thread, goes on
meanwhile, and waits (`_read`, `_settle`) while the other decides and the database works.
"""


class Place(NamedTuple):
    """Shares of the time: that a thread was there, and that it ran there."""

    part: str
    thread: str
    where: str
    there: float
    ran: float


def section(rounds: Sequence[Figures]) -> Iterator[str]:
    """The section's lines."""
    yield "## Where the time goes\n"
    yield _EXPLAINED
    yield "| process | thread | place | of the time | running |"
    yield "|---|---|---|---|---|"
    places = sorted(_places(rounds), key=lambda each: -each.there)
    for part in dict.fromkeys(each.part for each in _places(rounds)):
        yield from (_row(each) for each in places if each.part == part)
    yield ""


def _places(rounds: Sequence[Figures]) -> list[Place]:
    """Those that are told, in the order of the experiment."""
    found = list(_all(rounds))
    ran: dict[tuple[str, str], float] = {}
    for each in found:
        ran[each[:2]] = ran.get(each[:2], 0.0) + each.ran
    return [each for each in found if each.there >= _LEAST and (each.thread == MAIN or ran[each[:2]] >= 2 * _LEAST)]


def _all(rounds: Sequence[Figures]) -> Iterator[Place]:
    for name in dict.fromkeys(name.partition(" ")[2] for each in rounds for name in each):
        part, _, rest = name.partition(" (")
        thread, _, where = rest.partition(") ")
        yield Place(part, thread, where, _share(rounds, f"{THERE} {name}"), _share(rounds, f"{RAN} {name}"))


def _share(rounds: Sequence[Figures], name: str) -> float:
    """The median; a place that was never seen in a round had no part in it."""
    return spread([each.get(name, 0.0) for each in rounds]).middle


def _row(place: Place) -> str:
    return f"| {place.part} | {place.thread} | `{place.where}` | {place.there:.0%} | {place.ran:.0%} |"
