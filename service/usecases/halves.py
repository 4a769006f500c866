"""One bad item costs a split, not the batch: halves that fail are halved again, down to the one."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from service.domain.fates import Failure, Fate, failure_of

Item = TypeVar("Item")
#: another writer can decide first again and again only if it breaks the rule to lock the coupon
_DECIDE_AGAIN_MOST = 3


def in_halves(
    items: Sequence[Item],
    write: Callable[[Sequence[Item]], None],
    failed: Callable[[Item, Failure], None],
) -> None:
    """Calls `write` for all items, in order; `failed` for each single one whose own failure stopped its write.

    System failures are raised as they came; what was written before them stays written.
    """
    failure = _try(items, write)
    if failure is None:
        return
    if len(items) == 1:
        failed(items[0], failure)
        return
    middle = len(items) // 2
    in_halves(items[:middle], write, failed)
    in_halves(items[middle:], write, failed)


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
