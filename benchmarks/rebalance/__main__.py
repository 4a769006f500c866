"""How long partitions stay unread when a member joins, leaves, dies or is suspended: `python -m benchmarks.rebalance`.

One consumer group per group protocol, all on the same topic and side by side. See ADR 0009.
"""

import argparse
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain, count
from pathlib import Path
from random import Random
from statistics import median
from threading import Event, Thread
from typing import NamedTuple

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from benchmarks.rebalance.group import Group
from benchmarks.rebalance.group_protocols import HEARTBEAT_MS, PROTOCOLS, configure_broker, member_settings
from benchmarks.rebalance.unavailability import Effect, Window
from stack.local import LocalStack
from stack.settings import ISOLATED

_DIRECTORY = Path(".stack/rebalance")
_TOPIC = "rebalance"
_PARTITIONS = 6
_RECORDS_PER_SECOND = 200
_TIMEOUT_SECONDS = 10.0
_STAGGER_SECONDS = 1.3
_STABLE_SECONDS = 6.0


class GroupEvent(NamedTuple):
    """What happens to the second member of a group, and the least seconds for which its effect is observed."""

    name: str
    trigger: Callable[[Group, str], None]
    seconds: float


_JOINS = GroupEvent("joins", Group.start, 8)
EVENTS = (
    _JOINS,
    GroupEvent("leaves gracefully", Group.stop, 10),
    _JOINS,
    GroupEvent("is killed", Group.kill, 12),
    _JOINS,
    GroupEvent("is restarted gracefully", Group.restart, 10),
    GroupEvent("is killed and restarted", Group.kill_and_restart, 12),
    GroupEvent("is suspended beyond its session timeout", Group.suspend, 10),
    GroupEvent("is resumed", Group.resume, 8),
)
EventKey = tuple[str, str]
"""Names of an event and of a protocol."""
Effects = Mapping[EventKey, Sequence[Effect]]


def main() -> None:
    """Run the same events with every protocol, `--rounds` times; print the median and, in brackets, the maximum."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rebalance", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    effects: dict[EventKey, list[Effect]] = {}
    for key, effect in _run_rounds(parser.parse_args().rounds):
        effects.setdefault(key, []).append(effect)
    _print("longest wait of a record in seconds, partitions that changed their reader", effects, lambda e: e.moved)
    _print("longest wait of a record in seconds, partitions that kept their reader", effects, lambda e: e.stayed)
    _print("partitions reassigned to another member", effects, lambda e: e.reassigned)
    _print("assignments and revocations", effects, lambda e: e.changes)
    _print("records read more than once", effects, lambda e: e.duplicates)


def _run_rounds(rounds: int) -> Iterator[tuple[EventKey, Effect]]:
    shutil.rmtree(_DIRECTORY, ignore_errors=True)
    with (
        LocalStack(_DIRECTORY, ["kafka"], ISOLATED) as stack,
        produce(stack.kafka_bootstrap_servers),
        ThreadPoolExecutor(len(PROTOCOLS)) as groups,
    ):
        for number in range(rounds):
            run = partial(_run_group, stack.kafka_bootstrap_servers, number)
            yield from chain.from_iterable(groups.map(run, range(len(PROTOCOLS))))


@contextmanager
def produce(bootstrap_servers: str) -> Iterator[None]:
    """Create the topic and produce to its partitions in turn, at a constant rate, while the block runs."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic(_TOPIC, _PARTITIONS, 1)])[_TOPIC].result(_TIMEOUT_SECONDS)
    producer, stop = Producer({"bootstrap.servers": bootstrap_servers}), Event()

    def run() -> None:
        began = time.monotonic()
        for number in count():
            if stop.wait(max(0.0, began + number / _RECORDS_PER_SECOND - time.monotonic())):
                break
            producer.produce(_TOPIC, b"", partition=number % _PARTITIONS)
            producer.poll(0)
        producer.flush(_TIMEOUT_SECONDS)

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _run_group(servers: str, number: int, protocol_index: int) -> list[tuple[EventKey, Effect]]:
    """Run all events on a new group of one protocol. Groups start one after another to spread process starts."""
    protocol, name, random = PROTOCOLS[protocol_index], f"{protocol_index}-{number}", Random(number)
    configure_broker(servers, name)
    time.sleep(protocol_index * _STAGGER_SECONDS)
    settings = member_settings(servers, name, protocol)
    with closing(Group(_DIRECTORY / name, _TOPIC, settings, static=protocol.static)) as group:
        group.start("first")
        time.sleep(_STABLE_SECONDS)
        windows = [(event.name, _trigger(group, event, random)) for event in EVENTS]
    history = group.history()
    if unread := history.unread_count():
        print(f"{protocol.name}: {unread} records were not read")
    return [((event, protocol.name), history.effect(window)) for event, window in windows]


def _trigger(group: Group, event: GroupEvent, random: Random) -> Window:
    """Trigger an event and observe it; the random time at the end lets the next come anywhere between heartbeats."""
    began = time.time()
    event.trigger(group, "second")
    ends = began + event.seconds + random.random() * HEARTBEAT_MS / 1000
    time.sleep(max(0.0, ends - time.time()))
    return Window(began, time.time())


def _print(title: str, effects: Effects, figure: Callable[[Effect], float | None]) -> None:
    print(f"\n| {title} | {' | '.join(each.name for each in PROTOCOLS)} |\n|{'---|' * (1 + len(PROTOCOLS))}")
    for event in dict.fromkeys(each.name for each in EVENTS):
        cells = [_cell([figure(effect) for effect in effects[event, protocol.name]]) for protocol in PROTOCOLS]
        print(f"| {event} | {' | '.join(cells)} |")


def _cell(figures: Sequence[float | None]) -> str:
    values = [figure for figure in figures if figure is not None]
    return f"{median(values):.1f} ({max(values):.1f})" if values else "–"


if __name__ == "__main__":
    main()
