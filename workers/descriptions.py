"""What Flower shows of a task, in words: which requests and which attempt (`args`), and why it was sent (`kwargs`).

The two texts travel in the message's headers `argsrepr` and `kwargsrepr`. They are for people; no task reads them.
Flower cuts both columns at about 50 characters, so the important words come first.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from service.domain.failures import Failure
from service.domain.request import LogPosition
from service.domain.retry import ISSUE_RETRY_POLICY
from service.usecases.write_plan import HeldFailure
from workers.queues import MessageSource, Task

_MAX_REASON_LENGTH = 120
_MAX_COUPONS_NAMED = 3
_WHY = {MessageSource.BROKER: "after a commit", MessageSource.SWEEP: "overdue, sent again by the sweep"}
#: the work of tasks that take whatever is due
_DUE_WORK = {
    Task.NOTIFY: "notices that are due",
    Task.FORWARD_DEAD_LETTERS: "dead letters not on their topic yet",
    Task.SYNC_GATE: "released seats and sold-out coupons, for the gate",
    Task.SYNC_CHANGES: "coupon changes, for the gate",
}


class Description(NamedTuple):
    """The two texts that describe a task."""

    what: str
    why: str

    def options(self) -> dict[str, str]:
        """Return the options for Celery's `send_task` and `retry`."""
        return {"argsrepr": self.what, "kwargsrepr": self.why}


def describe_due_work(task: Task, source: MessageSource) -> Description:
    """Describe a task that processes whatever is due."""
    return Description(_DUE_WORK[task], _WHY[source])


def describe_continuation(task: Task) -> Description:
    """Describe a task that continues a run which reached its time limit."""
    return Description(_DUE_WORK[task], "the previous run reached its limit of 3 s")


def describe_due_work_retry(task: Task, attempt: int, max_attempts: int, error: Exception) -> Description:
    """Describe another attempt of a task that processes whatever is due, after one that raised."""
    return Description(f"{_DUE_WORK[task]}, attempt {attempt} of {max_attempts}", f"after {_one_line(error)}")


def describe_standby(coupon_id: int, source: MessageSource) -> Description:
    """Describe the task that decides the standby requests of a coupon."""
    return Description(f"standby requests of coupon {coupon_id}", _WHY[source])


def describe_retry(
    log_positions: Sequence[LogPosition],
    attempts_made: int,
    failures: Mapping[LogPosition, HeldFailure],
    source: MessageSource = MessageSource.BROKER,
) -> Description:
    """Describe another attempt for requests that failed together, after `attempts_made`.

    `failures` names coupons and reasons; it may lack some or all of the requests. Example: `3 requests of coupon 42,
    attempt 2 of 3 (partition 1, offsets 240001-240050)`, `after DivisionByZero: division by zero`.
    """
    known = [failures[at] for at in log_positions if at in failures]
    coupon_ids = sorted({held.coupon_id for held in known})
    named = ", ".join(map(str, coupon_ids[:_MAX_COUPONS_NAMED])) + (", ..." * (len(coupon_ids) > _MAX_COUPONS_NAMED))
    what = (
        f"{len(log_positions)} {'request' if len(log_positions) == 1 else 'requests'}"
        f"{f' of coupon {named}' if coupon_ids else ''},"
        f" attempt {attempts_made + 1} of {ISSUE_RETRY_POLICY.attempts} ({_offsets(log_positions)})"
    )
    reasons = list(dict.fromkeys(_reason(held.failure) for held in known))
    if not reasons:
        return Description(what, _WHY[source])
    count = len(reasons) - 1
    others = f", and {count} other error{'s' if count > 1 else ''}" if count else ""
    return Description(what, f"after {reasons[0]}{others}")


def describe_uncounted_retry(log_positions: Sequence[LogPosition], attempts_made: int, failure: Failure) -> Description:
    """Describe the repetition of an attempt that a system failure ended; it is not counted."""
    return Description(describe_retry(log_positions, attempts_made, {}).what, f"not counted: {_reason(failure)}")


def describe_failure(failed: int, tried: int, first: HeldFailure) -> str:
    """Describe how many of the tried requests failed again, and the reason of the first."""
    return f"{failed} of {tried} failed again: {_reason(first.failure)}"


def _reason(failure: Failure) -> str:
    """Return type and message; the type without its package, which would take half of Flower's column."""
    return _one_line(f"{failure.error_type.rpartition('.')[2]}: {failure.message}")


def _one_line(reason: object) -> str:
    line = str(reason).strip().partition("\n")[0]  # the lines after it say where in the database it happened
    return line if len(line) <= _MAX_REASON_LENGTH else line[: _MAX_REASON_LENGTH - 3] + "..."


def _offsets(log_positions: Sequence[LogPosition]) -> str:
    parts = []
    for partition, group in groupby(sorted(log_positions), lambda at: at.partition):
        offsets = [at.offset for at in group]
        shown = f"offset {offsets[0]}" if len(offsets) == 1 else f"offsets {offsets[0]}-{offsets[-1]}"
        parts.append(f"partition {partition}, {shown}")
    return "; ".join(parts)
