"""The gate's keys and scripts in Redis, and the fields it stores for a coupon."""

import re
from enum import StrEnum
from importlib.resources import files

from service.domain.coupon import Coupon
from service.limits import MAX_ID

_LUA = files(__package__).joinpath("lua")


def _script(*names: str) -> str:
    """Return the text of a script, which may use the functions of try_call and of the files named before it."""
    return "".join(_LUA.joinpath(f"{name}.lua").read_text() for name in ("try_call", *names))


ADMIT = _script("read_clock", "new_limiter", "admit")
MARK_UNKNOWN = _script("mark_unknown")
FILL = _script("read_clock", "has_ended", "fill")
UPDATE_COUPON = _script("update_coupon")
UPDATE_PROGRESS = _script("update_progress")
RELEASE = _script("release")
NOTE_ENDED = _script("read_clock", "has_ended", "note_ended")
EVICT_ENDED = _script("evict_ended")
CHECK_WRITABLE = _script("check_writable")
DELETE_WRONG_TYPES = _script("delete_wrong_types")

#: hash from partition to next offset to decide; the issuer publishes it after each commit
PROGRESS_KEY = "gate:progress"
#: sorted set of the request ids without an acknowledgement; the score is the time of the last append attempt in
#: milliseconds
UNACKNOWLEDGED_KEY = "gate:unacknowledged"
#: the server's run id that the sweep read last; a server has a new one after each start. A coupon's hash also has a
#: field `run_id`: the server's run id when it was filled
RUN_ID_KEY = "gate:run_id"
#: the key that readiness writes
WRITE_CHECK_KEY = "gate:write_check"
WRITE_CHECK_SECONDS = 60
#: stands for a coupon that does not exist: no coupon has this id
NO_COUPON_ID = 0
#: matches every key that belongs to a coupon
COUPON_KEY_PATTERN = "gate:[0-9]*"
#: a key that belongs to a coupon, with the coupon's id
COUPON_KEY = re.compile(rb"gate:([1-9][0-9]*)(?::.*)?", re.DOTALL)
#: when beat's sweep last ran, in seconds since 1970 UTC
LAST_SWEEP_KEY = "gate:swept_at"
#: hash with counts of what Celery's workers did (service/gate/task_counts.py)
TASK_COUNTS_KEY = "gate:task_counts"
#: why the webhook's receiver did not accept the last POST that failed (service/gate/webhook_failure.py)
WEBHOOK_FAILURE_KEY = "gate:webhook_failure"
#: hash from issuer to what it published about itself last (service/gate/issuer_health.py)
ISSUER_HEALTH_KEY = "gate:issuer_health"
#: sorted set of Celery's workers; the score is the time of the last heartbeat in seconds since 1970 UTC
WORKERS_KEY = "gate:workers"
#: list of follow-ups that an issuer turns into Celery tasks, the oldest first
FOLLOW_UPS_KEY = "gate:follow_ups"
MAX_FOLLOW_UPS = 1_000
#: field of the temporary hash of seats that was written when the fill began; no user has this id
FILL_MARK = ""
#: prefix of the key that marks a task as queued or running; while it exists, a commit does not send the task
QUEUED_TASK_PREFIX = "gate:queued:"
#: later than every attempt to append a request
END_OF_TIME_MS = 2**53
#: value of `capacity` for a coupon that does not exist, and how long it is kept
UNKNOWN = "unknown"
UNKNOWN_SECONDS = 5


#: the keys that all coupons share, except those that are only ever set, with their types
SHARED_KEY_TYPES = {
    PROGRESS_KEY: "hash",
    UNACKNOWLEDGED_KEY: "zset",
    RUN_ID_KEY: "string",
    LAST_SWEEP_KEY: "string",
    FOLLOW_UPS_KEY: "list",
    TASK_COUNTS_KEY: "hash",
    WEBHOOK_FAILURE_KEY: "string",
    ISSUER_HEALTH_KEY: "hash",
    WORKERS_KEY: "zset",
}


class Verdict(StrEnum):
    """The gate's result for a seat request."""

    ADMITTED = "admitted"
    #: the user has a seat, and the broker has acknowledged its request
    DUPLICATE = "duplicate"
    #: the user has a seat, and its request has not been acknowledged: it may be in the log or not
    UNACKNOWLEDGED = "unacknowledged"
    SOLD_OUT = "sold_out"
    NOT_OPEN = "not_open"
    CLOSED = "closed"
    PAUSED = "paused"
    UNKNOWN_COUPON = "unknown_coupon"
    #: a rate limit has no room for the request
    RATE_LIMITED = "rate_limited"
    #: a seat is free, and too many records are undecided
    BACKLOG_FULL = "backlog_full"
    #: the gate has no data about this coupon and must be filled
    COLD = "cold"


def coupon_key(coupon_id: int) -> str:
    """The hash with a coupon's capacity, window and run id."""
    return f"gate:{coupon_id}"


def seats_key(coupon_id: int) -> str:
    """The hash from user to request id."""
    return f"gate:{coupon_id}:seats"


def offsets_key(coupon_id: int) -> str:
    """The hash from user to the offset of the request."""
    return f"gate:{coupon_id}:offsets"


def fill_lock_key(coupon_id: int) -> str:
    """The key that exists while a process fills the gate for the coupon."""
    return f"gate:{coupon_id}:filling"


def coupon_key_types(coupon_id: int) -> dict[str, str]:
    """The keys with a coupon's values, seats and offsets, with their types."""
    return dict.fromkeys((coupon_key(coupon_id), seats_key(coupon_id), offsets_key(coupon_id)), "hash")


def parse_number(text: bytes | str | None) -> int | None:
    """Return the stored number from 0 to MAX_ID; None if there is none, or something else is stored."""
    if text is None or len(text) > len(str(MAX_ID)) or not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= MAX_ID else None


def coupon_fields(coupon: Coupon) -> dict[str, str]:
    """The fields of a coupon's hash, except its run id."""
    fields = {
        "capacity": str(coupon.quantity + coupon.waitlist),
        "quantity": str(coupon.quantity),
        "opens": _text(coupon.opens_at_ms),
        "closes": _text(coupon.closes_at_ms),
        "override": coupon.override.value,
        "version": str(coupon.version),
    }
    return fields | ({"sold_out": "1"} if coupon.issued >= coupon.quantity else {})


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
