"""What a group's members read, and from it how long each partition was unavailable during an event."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Process(NamedTuple):
    """A member's name, and the number of its process: a restarted member has another one."""

    member: str
    number: int


class RecordRead(NamedTuple):
    """A record, the process that read it, and when it was produced and read, in seconds since 1970."""

    partition: int
    offset: int
    process: Process
    produced: float
    at: float


class Window(NamedTuple):
    """The time in which an event takes effect, in seconds since 1970."""

    began: float
    ended: float

    def contains(self, at: float) -> bool:
        """Return whether a moment lies in the window."""
        return self.began <= at < self.ended


@dataclass
class Effect:
    """The effect of an event on a group."""

    #: longest wait of a record in seconds, in partitions that another process took over; None without such a partition
    moved: float | None = None
    #: the same in partitions that kept their reader
    stayed: float | None = None
    #: partitions that were reassigned from one member to another, those that came back included
    reassigned: int = 0
    #: assignments and revocations of at least one partition
    changes: int = 0
    #: records that had been read before
    duplicates: int = 0

    def add_partition(self, window: Window, reads: list[RecordRead]) -> None:
        """Add one partition. Its last read before the window shows which process was assigned to it."""
        within = [read for read in reads if window.contains(read.at)]
        before = [read for read in reads if read.at < window.began][-1:]
        # a partition that nobody reads waits for the whole window
        wait = max((read.at - read.produced for read in within), default=window.ended - window.began)
        readers = {read.process for read in before + within}
        if len(readers) > 1:
            self.moved = max(self.moved or 0.0, wait)
        else:
            self.stayed = max(self.stayed or 0.0, wait)
        self.reassigned += len({process.member for process in readers}) > 1


@dataclass
class GroupHistory:
    """All reads of a group's members, and the times of their assignments and revocations."""

    reads: list[RecordRead] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)

    def effect(self, window: Window) -> Effect:
        """Return the effect of the event in a window."""
        effect = Effect(changes=sum(map(window.contains, self.changes)))
        first_reads, duplicates = self._split()
        for reads in first_reads.values():
            effect.add_partition(window, reads)
        effect.duplicates = sum(window.contains(read.at) for read in duplicates)
        return effect

    def unread_count(self) -> int:
        """Return the number of records that were not read although a later one of their partition was."""
        first_reads, _ = self._split()
        offsets = [[read.offset for read in reads] for reads in first_reads.values()]
        return sum(max(each) + 1 - min(each) - len(each) for each in offsets)

    def _split(self) -> tuple[dict[int, list[RecordRead]], list[RecordRead]]:
        """Return the first read of each record, by partition and in the order of reading, and all later reads."""
        seen: set[tuple[int, int]] = set()
        first_reads: dict[int, list[RecordRead]] = {}
        duplicates = []
        for read in sorted(self.reads, key=lambda read: read.at):
            if (read.partition, read.offset) in seen:
                duplicates.append(read)
            else:
                seen.add((read.partition, read.offset))
                first_reads.setdefault(read.partition, []).append(read)
        return first_reads, duplicates
