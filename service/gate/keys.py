"""The gate's keys in Redis, its scripts, and the values it stores about a coupon."""

from enum import StrEnum
from importlib.resources import files

from service.domain.coupon import Coupon

_LUA = files(__package__).joinpath("lua")

ADMIT = _LUA.joinpath("admit.lua").read_text()
RECORD_OFFSETS = _LUA.joinpath("record_offsets.lua").read_text()
MARK_UNKNOWN = _LUA.joinpath("mark_unknown.lua").read_text()
FILL = _LUA.joinpath("fill.lua").read_text()
UPDATE_COUPON = _LUA.joinpath("update_coupon.lua").read_text()
UPDATE_PROGRESS = _LUA.joinpath("update_progress.lua").read_text()
RELEASE = _LUA.joinpath("release.lua").read_text()

#: partition to next offset to decide, told by the issuer after each commit
PROGRESS_KEY = "gate:progress"
#: request ids by minting time that the broker has not been heard of yet
UNACKNOWLEDGED_KEY = "gate:unacknowledged"
#: the life of the server (`run_id`) in which the gate was told all that it knows
RUN_ID_KEY = "gate:run_id"
#: every key that belongs to a coupon
COUPON_KEY_PATTERN = "gate:[0-9]*"
#: when beat's sweep last ran
LAST_SWEEP_KEY = "gate:swept_at"
#: later than every try of an append
ANY_TIME_MS = 2**53
UNKNOWN = "unknown"
UNKNOWN_SECONDS = 5


class Verdict(StrEnum):
    """What the gate says of a request."""

    ADMITTED = "admitted"
    #: the user has a seat, and the broker has acknowledged its request
    DUPLICATE = "duplicate"
    #: the user has a seat, and nobody knows yet whether its request reached the log
    UNACKNOWLEDGED = "unacknowledged"
    SOLD_OUT = "sold_out"
    NOT_OPEN = "not_open"
    CLOSED = "closed"
    PAUSED = "paused"
    UNKNOWN_COUPON = "unknown_coupon"
    #: the gate has nothing of this coupon and must be filled
    COLD = "cold"


def coupon_key(coupon_id: int) -> str:
    """The hash with a coupon's capacity and window."""
    return f"gate:{coupon_id}"


def seats_key(coupon_id: int) -> str:
    """The hash from user to request id."""
    return f"gate:{coupon_id}:seats"


def offsets_key(coupon_id: int) -> str:
    """The hash from user to the offset of the request."""
    return f"gate:{coupon_id}:offsets"


def coupon_fields(coupon: Coupon) -> dict[str, str]:
    """A coupon as the gate's hash."""
    told = {
        "capacity": str(coupon.quantity + coupon.waitlist),
        "quantity": str(coupon.quantity),
        "opens": _text(coupon.opens_at_ms),
        "closes": _text(coupon.closes_at_ms),
        "override": coupon.override.value,
        "version": str(coupon.version),
    }
    return told | ({"sold_out": "1"} if coupon.issued >= coupon.quantity else {})


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
