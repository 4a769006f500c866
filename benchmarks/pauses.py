"""What a group's members wrote down, and by it how long each partition stood still."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Process(NamedTuple):
    """A member's name, and which of the processes that had it."""

    member: str
    number: int


class Read(NamedTuple):
    """A record, who read it, when it was produced and when it was read, in seconds since 1970."""

    partition: int
    offset: int
    process: Process
    produced: float
    at: float


class Span(NamedTuple):
    """The time in which an event takes effect."""

    began: float
    ended: float

    def holds(self, at: float) -> bool:
        """Whether a moment lies in it."""
        return self.began <= at < self.ended


@dataclass
class Effect:
    """What an event did to a group."""

    #: longest wait of a record, in seconds, in a partition that another process took over; in one that none did
    moved: float | None = None
    stayed: float | None = None
    #: partitions that went from one member to another, or there and back
    passed_on: int = 0
    #: how often a process was given partitions or lost some
    changes: int = 0
    #: records that had been read before
    read_again: int = 0


@dataclass
class Account:
    """Everything that a group's members read, and when each was given or lost partitions."""

    reads: list[Read] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)

    def effect(self, span: Span) -> Effect:
        """How the group fared in a span."""
        effect = Effect(changes=sum(map(span.holds, self.changes)))
        first, again = _sorted_out(self.reads)
        for reads in first.values():
            _see(effect, span, reads)
        effect.read_again = sum(span.holds(read.at) for read in again)
        return effect

    def skipped(self) -> int:
        """Records that nobody read, though a later one of their partition was read."""
        first, _ = _sorted_out(self.reads)
        offsets = [[read.offset for read in reads] for reads in first.values()]
        return sum(max(of) + 1 - min(of) - len(of) for of in offsets)


def _sorted_out(reads: Iterable[Read]) -> tuple[dict[int, list[Read]], list[Read]]:
    """The first reading of each record, by partition and in the order of reading; all other readings."""
    seen: set[tuple[int, int]] = set()
    first: dict[int, list[Read]] = {}
    again = []
    for read in sorted(reads, key=lambda read: read.at):
        if (read.partition, read.offset) in seen:
            again.append(read)
        else:
            seen.add((read.partition, read.offset))
            first.setdefault(read.partition, []).append(read)
    return first, again


def _see(effect: Effect, span: Span, reads: list[Read]) -> None:
    """Adds what happened to one partition; its reader of before the span belongs to the comparison."""
    within = [read for read in reads if span.holds(read.at)]
    before = [read for read in reads if read.at < span.began][-1:]
    wait = max((read.at - read.produced for read in within), default=span.ended - span.began)
    readers = {read.process for read in before + within}
    if len(readers) > 1:
        effect.moved = max(effect.moved or 0.0, wait)
    else:
        effect.stayed = max(effect.stayed or 0.0, wait)
    effect.passed_on += len({process.member for process in readers}) > 1
