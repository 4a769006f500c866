"""Tells how far a proof has come, for those who wait for it."""

from collections.abc import Callable, Generator
from contextlib import closing
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
    """Counts the items of the step in progress, and reports every thousandth. Without a listener it does nothing."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._step = ProofStep.LOG
        self._done = self._total = 0

    def begin(self, step: ProofStep, count_items: Callable[[], int]) -> None:
        """Begin a step; `count_items` returns how many items it has, which may take a while."""
        if self._on_progress:
            self._step, self._done, self._total = step, 0, count_items()
            self._on_progress(step, 0, self._total)

    def count(self, items: Generator[Item]) -> Generator[Item]:
        """Yield the items, counting them, and close their generator."""
        with closing(items):
            for item in items:
                self._done += 1
                if self._on_progress and not self._done % _REPORT_EVERY:
                    self._on_progress(self._step, self._done, self._total)
                yield item
