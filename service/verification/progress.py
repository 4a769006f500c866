"""Tells how far a proof has come, for those who wait for it."""

from collections.abc import Callable, Generator, Iterable
from enum import StrEnum
from typing import TypeVar

Item = TypeVar("Item")
#: items between two reports
_REPORT_EVERY = 1_000


class ProofStep(StrEnum):
    """What the proof does, in this order."""

    LOG = "reading the log"
    ORDER = "checking the order"
    COUNTS = "counting rows"


#: called with the step, the items that are done and how many there are
OnProgress = Callable[[ProofStep, int, int], None]


class ProofProgress:
    """Counts the items of the step in progress, and reports every thousandth."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._step = ProofStep.LOG
        self._done = self._total = 0

    def begin(self, step: ProofStep, total: int) -> None:
        """Begin a step with so many items."""
        self._step, self._done, self._total = step, 0, total
        self._on_progress(step, 0, total)

    def count(self, items: Iterable[Item]) -> Generator[Item]:
        """Yield the items, counting them, and close their generator."""
        try:
            for item in items:
                self._done += 1
                if not self._done % _REPORT_EVERY:
                    self._on_progress(self._step, self._done, self._total)
                yield item
        finally:
            if isinstance(items, Generator):
                items.close()
