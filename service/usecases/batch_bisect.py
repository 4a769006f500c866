"""Writes a batch in which single items fail: a failing segment is halved, after a success the size doubles.

In a small failing segment one probe finds all failing items; they are written as failed together with the succeeding
ones.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from service.domain.failures import Failure, FailureClass, classify

Item = TypeVar("Item")
#: why requests fail, by request id
Failures = Mapping[str, Failure]
#: attempts of one write; a unique violation in the last one counts as its failure
_MAX_DECISIONS = 3
#: Maximum number of failures in one transaction, one probe and one retry task. It bounds how long coupons stay locked,
#: and a task in which all requests fail still ends well within its time limit.
MAX_FAILURES_PER_TRANSACTION = 200
#: seconds after which a batch with a failure ends early: a few failures among thousands of records can take long
MAX_FAILURE_SECONDS = 1.0


def write_bisecting(
    items: Sequence[Item],
    write: Callable[[Sequence[Item], Failures], None],
    write_failed: Callable[[Item, Failure], None],
    find_failing: Callable[[Sequence[Item]], Failures] = lambda _: {},
    *,
    max_failures: float = math.inf,
    max_seconds: float = math.inf,
) -> int:
    """Write items in order, in one call of `write` if possible, and return how many were written.

    `write` gets items and the failures among them that are known; it writes those as failed, and must undo everything
    when it raises. `write_failed` gets an item whose own write failed. `find_failing` returns which items fail.
    Ends early after `max_failures` failures, or after `max_seconds` if an item has failed. Raises system failures
    unchanged.
    """
    at, size, failures = 0, len(items), 0
    began = time.monotonic()
    while at < len(items) and failures < max_failures:
        if failures and time.monotonic() > began + max_seconds:
            break
        segment = items[at : at + size]
        failure, found = _run_action(partial(write, segment, {})), 0
        if failure and 1 < len(segment) <= MAX_FAILURES_PER_TRANSACTION and (failing := _probe(segment, find_failing)):
            failure, found = _run_action(partial(write, segment, failing)), len(failing)
        if failure is None:
            at, size, failures = at + len(segment), size * 2, failures + found
        elif len(segment) > 1:
            size = len(segment) // 2
        else:
            write_failed(segment[0], failure)
            at, failures = at + 1, failures + 1
    return at


def probe_then_write(
    items: Sequence[Item],
    write: Callable[[Sequence[Item], Failures], None],
    write_failed: Callable[[Item, Failure], None],
    find_failing: Callable[[Sequence[Item]], Failures],
) -> None:
    """Write items that have failed before: like write_bisecting, with the probe before the write."""
    for first in range(0, len(items), MAX_FAILURES_PER_TRANSACTION):
        segment = items[first : first + MAX_FAILURES_PER_TRANSACTION]
        if _run_action(partial(write, segment, _probe(segment, find_failing))):
            write_bisecting(segment, write, write_failed, find_failing)


def _probe(items: Sequence[Item], find_failing: Callable[[Sequence[Item]], Failures]) -> Failures:
    """Return which items fail; empty if the probe itself fails."""
    failing: dict[str, Failure] = {}
    _run_action(lambda: failing.update(find_failing(items)))
    return failing


def _run_action(action: Callable[[], None]) -> Failure | None:
    """Run the action, again if another writer decided first; return its failure, and raise a system failure."""
    for attempt in range(1, _MAX_DECISIONS + 1):
        try:
            action()
        except Exception as error:
            failure = classify(error)
            if failure.failure_class is FailureClass.SYSTEM:
                raise
            if failure.failure_class is FailureClass.DECIDE_AGAIN and attempt < _MAX_DECISIONS:
                continue
            return failure
        return None
    return None
