"""One bad item costs a split, not the batch: segments that fail are halved, those that succeed are doubled.

Of a small segment that fails, those that fail by themselves are asked for at once, and written as failed with the rest.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from service.domain.failures import Failure, FailureClass, classify

Item = TypeVar("Item")
#: why requests fail by themselves, by request id
Failures = Mapping[str, Failure]
#: another writer can decide first again and again only if it breaks the rule to lock the coupon
_DECIDE_AGAIN_MOST = 3
#: so many may fail in one transaction, and are asked about or sent to be retried together: the coupons are locked until
#: the last of them is written, and a task that fails for each still ends well within its time limit
MAX_FAILURES_PER_TRANSACTION = 200
#: few among thousands may take long, too
MAX_FAILURE_SECONDS = 1.0


def write_bisecting(
    items: Sequence[Item],
    write: Callable[[Sequence[Item], Failures], None],
    failed: Callable[[Item, Failure], None],
    tried: Callable[[Sequence[Item]], Failures] = lambda _: {},
    *,
    failures_most: float = math.inf,
    seconds_most: float = math.inf,
) -> int:
    """Writes items in order, all at once if that works; `failed` takes each single one whose own write failed.

    `tried` tells which of some items fail by themselves; `write` is given them and writes them as failed. It must leave
    nothing behind when it raises. System failures are raised as they came. Ends early once `failures_most` have failed,
    or one has and `seconds_most` are over; how many items it is done with.
    """
    at, size, failures = 0, len(items), 0
    began = time.monotonic()
    while at < len(items) and failures < failures_most:
        if failures and time.monotonic() > began + seconds_most:
            break
        some = items[at : at + size]
        failure, found = _write(some, write, tried)
        if failure is None:
            at, size, failures = at + len(some), size * 2, failures + found
        elif len(some) > 1:
            size = len(some) // 2
        else:
            failed(some[0], failure)
            at, failures = at + 1, failures + 1
    return at


def probe_then_write(
    items: Sequence[Item],
    write: Callable[[Sequence[Item], Failures], None],
    failed: Callable[[Item, Failure], None],
    tried: Callable[[Sequence[Item]], Failures],
) -> None:
    """As in_segments, for items that have failed before: they are asked about before they are written, not after."""
    for first in range(0, len(items), MAX_FAILURES_PER_TRANSACTION):
        some = items[first : first + MAX_FAILURES_PER_TRANSACTION]
        failing = _ask(some, tried)
        if _try(partial(write, some, failing)):
            write_bisecting(some, write, failed, tried)


def _write(
    items: Sequence[Item],
    write: Callable[[Sequence[Item], Failures], None],
    tried: Callable[[Sequence[Item]], Failures],
) -> tuple[Failure | None, int]:
    """Why the items cannot be written as one, if they cannot, and how many were written as failed."""
    failure = _try(lambda: write(items, {}))
    if failure is None or not 1 < len(items) <= MAX_FAILURES_PER_TRANSACTION:
        return failure, 0
    failing = _ask(items, tried)
    return (_try(lambda: write(items, failing)), len(failing)) if failing else (failure, 0)


def _ask(items: Sequence[Item], tried: Callable[[Sequence[Item]], Failures]) -> Failures:
    """Which of the items fail by themselves; none where even that cannot be told."""
    failing: dict[str, Failure] = {}
    _try(lambda: failing.update(tried(items)))
    return failing


def _try(act: Callable[[], None]) -> Failure | None:
    for attempt in range(1, _DECIDE_AGAIN_MOST + 1):
        try:
            act()
        except Exception as error:
            failure = classify(error)
            if failure.failure_class is FailureClass.SYSTEM:
                raise
            if failure.failure_class is FailureClass.DECIDE_AGAIN and attempt < _DECIDE_AGAIN_MOST:
                continue
            return failure
        return None
    return None
