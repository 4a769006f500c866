"""One bad item costs a split, not the batch: segments that fail are halved, those that succeed are doubled."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from service.domain.fates import Failure, Fate, failure_of

Item = TypeVar("Item")
#: another writer can decide first again and again only if it breaks the rule to lock the coupon
_DECIDE_AGAIN_MOST = 3


def in_segments(
    items: Sequence[Item], write: Callable[[Sequence[Item]], None], failed: Callable[[Item, Failure], None]
) -> None:
    """Writes all items in order, all at once if that works; `failed` takes each single one whose own write failed.

    `write` must leave nothing behind when it raises. System failures are raised as they came.
    """
    at, size = 0, len(items)
    while at < len(items):
        some = items[at : at + size]
        failure = _try(some, write)
        if failure is None:
            at, size = at + len(some), size * 2
        elif len(some) > 1:
            size = len(some) // 2
        else:
            failed(some[0], failure)
            at += 1


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
