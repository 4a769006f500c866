"""What a stretch of time cost: processor seconds by part, memory of a process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from benchmarks.ground import Ground


class Cost:
    """Filled when the block that it measures ends: processor seconds of each part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def figures(self, requests: int) -> dict[str, float]:
        """As figures of a round: processor microseconds for each request."""
        return {f"{part.replace('-', '_')}_cpu_us": seconds / requests * 1e6 for part, seconds in self.seconds.items()}


@contextmanager
def measured(ground: Ground, parts: Sequence[str]) -> Iterator[Cost]:
    """Processor seconds, user and system, that each part and its children take while the block runs."""
    cost, before = Cost(), {part: _seconds(ground.stack.pid(part)) for part in parts}
    yield cost
    cost.seconds = {part: _seconds(ground.stack.pid(part)) - before[part] for part in parts}


def resident_mb(ground: Ground, part: str) -> float:
    """The resident memory of a part's main process, in megabytes."""
    return float(psutil.Process(ground.stack.pid(part)).memory_info().rss / 1_000_000)


def _seconds(pid: int) -> float:
    process = psutil.Process(pid)
    alive = [process, *process.children(recursive=True)]
    times = [each.cpu_times() for each in alive]
    ended = sum(each.children_user + each.children_system for each in times)
    return float(ended + sum(each.user + each.system for each in times))
