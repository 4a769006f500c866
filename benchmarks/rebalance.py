"""How long a group stands still when a member comes, goes, dies or freezes: `python -m benchmarks.rebalance`."""

import argparse
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random
from statistics import median
from typing import NamedTuple

from benchmarks import trickle, ways
from benchmarks.group import Group
from benchmarks.pauses import Effect, Span
from benchmarks.ways import WAYS
from stack.local import LocalStack
from stack.settings import OWN

_DIRECTORY = Path(".stack/rebalance")
_STAGGER_SECONDS = 1.3
_SETTLE_SECONDS = 6.0


class Happening(NamedTuple):
    """What happens to the second member, and for how many seconds that is watched at least."""

    name: str
    act: Callable[[Group, str], None]
    seconds: float


_JOINS = Happening("joins", Group.start, 8)
HAPPENINGS = (
    _JOINS,
    Happening("leaves in order", Group.leave, 10),
    _JOINS,
    Happening("is killed", Group.kill, 12),
    _JOINS,
    Happening("is restarted in order", Group.restart, 10),
    Happening("is killed and restarted", Group.kill_and_restart, 12),
    Happening("is frozen beyond its session", Group.freeze, 10),
    Happening("is woken", Group.wake, 8),
)
Found = tuple[tuple[str, str], Effect]
"""The names of what happened and of the way, and what it did."""
Effects = Mapping[tuple[str, str], Sequence[Effect]]


def main() -> None:
    """Lets all ways live through the same, side by side, as often as asked; prints medians and, in brackets, maxima."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    effects: dict[tuple[str, str], list[Effect]] = {}
    for names, effect in _lived_through(parser.parse_args().rounds):
        effects.setdefault(names, []).append(effect)
    _print("seconds that a record waited at most, where another process took over", effects, lambda one: one.moved)
    _print("seconds that a record waited at most, where none did", effects, lambda one: one.stayed)
    _print("partitions that went to another member", effects, lambda one: one.passed_on)
    _print("assignments and revocations", effects, lambda one: one.changes)
    _print("records read again", effects, lambda one: one.read_again)


def _lived_through(rounds: int) -> Iterator[Found]:
    shutil.rmtree(_DIRECTORY, ignore_errors=True)
    with (
        LocalStack(_DIRECTORY, ["kafka"], OWN) as stack,
        trickle.trickling(stack.kafka_bootstrap_servers),
        ThreadPoolExecutor(len(WAYS)) as side_by_side,
    ):
        for number in range(rounds):
            live = partial(_live, stack.kafka_bootstrap_servers, number)
            yield from chain.from_iterable(side_by_side.map(live, range(len(WAYS))))


def _live(servers: str, number: int, place: int) -> list[Found]:
    """One group lives through everything; the groups begin one after another, to start processes one after another."""
    way, name, chance = WAYS[place], f"{place}-{number}", Random(number)
    ways.prepare(servers, name)
    time.sleep(place * _STAGGER_SECONDS)
    settings = ways.member(servers, name, way)
    with closing(Group(_DIRECTORY / name, trickle.TOPIC, settings, static=way.static)) as group:
        group.start("first")
        time.sleep(_SETTLE_SECONDS)
        spans = [(one.name, _happens(group, one, chance)) for one in HAPPENINGS]
    account = group.account()
    if skipped := account.skipped():
        print(f"{way.name}: nobody read {skipped} records")
    return [((what, way.name), account.effect(span)) for what, span in spans]


def _happens(group: Group, happening: Happening, chance: Random) -> Span:
    """Lets it happen; the next may come at any moment between two heartbeats."""
    began = time.time()
    happening.act(group, "second")
    ends = began + happening.seconds + chance.random() * ways.HEARTBEAT_MS / 1000
    time.sleep(max(0.0, ends - time.time()))
    return Span(began, time.time())


def _print(title: str, effects: Effects, figure: Callable[[Effect], float | None]) -> None:
    print(f"\n| {title} | {' | '.join(way.name for way in WAYS)} |\n|{'---|' * (1 + len(WAYS))}")
    for what in dict.fromkeys(happening.name for happening in HAPPENINGS):
        cells = [_cell([figure(effect) for effect in effects[what, way.name]]) for way in WAYS]
        print(f"| {what} | {' | '.join(cells)} |")


def _cell(figures: Sequence[float | None]) -> str:
    known = [figure for figure in figures if figure is not None]
    return f"{median(known):.1f} ({max(known):.1f})" if known else "–"


if __name__ == "__main__":
    main()
