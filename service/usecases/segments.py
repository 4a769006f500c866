"""One bad item costs a split, not the batch: segments that fail are halved, those that succeed are doubled."""

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from service.domain.fates import Failure, Fate, failure_of

Item = TypeVar("Item")
#: another writer can decide first again and again only if it breaks the rule to lock the coupon
_DECIDE_AGAIN_MOST = 3
#: so many may fail in one transaction: each is a split, and the coupons are locked until the last of them is written
FAILURES_AT_ONCE = 30
#: few among thousands may take long, too
FAILURES_SECONDS = 1.0


def in_segments(
    items: Sequence[Item],
    write: Callable[[Sequence[Item]], None],
    failed: Callable[[Item, Failure], None],
    *,
    failures_most: float = math.inf,
    seconds_most: float = math.inf,
) -> int:
    """Writes items in order, all at once if that works; `failed` takes each single one whose own write failed.

    Ends early once `failures_most` have failed, or one has and `seconds_most` are over; how many items it is done with.
    `write` must leave nothing behind when it raises. System failures are raised as they came.
    """
    at, size, failures = 0, len(items), 0
    began = time.monotonic()
    while at < len(items) and failures < failures_most:
        if failures and time.monotonic() > began + seconds_most:
            break
        some = items[at : at + size]
        failure = _try(some, write)
        if failure is None:
            at, size = at + len(some), size * 2
        elif len(some) > 1:
            size = len(some) // 2
        else:
            failed(some[0], failure)
            at, failures = at + 1, failures + 1
    return at


def _try(items: Sequence[Item], write: Callable[[Sequence[Item]], None]) -> Failure | None:
    for attempt in range(1, _DECIDE_AGAIN_MOST + 1):
        try:
            write(items)
        except Exception as error:
            failure = failure_of(error)
            if failure.fate is Fate.SYSTEM:
                raise
            if failure.fate is Fate.DECIDE_AGAIN and attempt < _DECIDE_AGAIN_MOST:
                continue
            return failure
        return None
    return None
