"""What a waiting user can expect: records ahead, time, outlook, and when to ask again."""

import math
from enum import StrEnum
from typing import NamedTuple

from service.domain.coupon import Coupon, Override
from service.domain.drain_rate import RateRange
from service.domain.request import FINAL_STATES, RequestState

#: seconds after which a client asks again: at least, and at most before the spread
_MIN_REFRESH_SECONDS, _MAX_REFRESH_SECONDS = 1.0, 20.0
#: part of the time that is ahead, or else behind, after which a client asks again
_REFRESH_SHARE = 0.5
#: part of the interval that is added at random, but up to a second at least: clients that wait together are spread
_REFRESH_SPREAD = 0.5


class Outlook(StrEnum):
    """Whether a request will be issued, as far as that is known."""

    LIKELY = "likely"
    UNLIKELY = "unlikely"


class SecondsRange(NamedTuple):
    """Whole seconds, at least and at most."""

    min: int
    max: int


class Prospect(NamedTuple):
    """What is known about the decision that a request waits for; None: not known, or there is nothing to wait for."""

    #: how many records of the partition are decided before it
    position: int | None = None
    eta_seconds: SecondsRange | None = None
    outlook: Outlook | None = None


def wait_of(position: int | None, rate: RateRange | None) -> SecondsRange | None:
    """Return how long it takes to decide so many records and one more."""
    if position is None or rate is None:
        return None
    return SecondsRange(math.floor(position / rate.max), math.ceil((position + 1) / rate.min))


def outlook_of(state: RequestState, position: int | None, coupon: Coupon | None) -> Outlook | None:
    """Return whether the request will be issued; None if that is not known, and in a final state.

    coupon: None if it does not exist or was not read. It must have been read at the moment to which the position
    applies: later, records ahead may have taken its seats.

    A record ahead takes at most one seat of the coupon, and a free seat goes to the requests on standby first. So a
    request with fewer ahead than remain is issued, unless it is a duplicate, the coupon is closed, or its write fails.
    A request for a coupon without a free seat is issued only if a held seat is given up or the quantity is raised.
    """
    if state is RequestState.RETRYING:  # it holds a seat
        return Outlook.LIKELY
    if state is RequestState.STANDBY:
        return Outlook.UNLIKELY
    if state is not RequestState.QUEUED or coupon is None:
        return None
    free = coupon.remaining - coupon.standby
    if coupon.override is Override.CLOSED or free <= 0:
        return Outlook.UNLIKELY
    return Outlook.LIKELY if position is not None and position < free else None


def refresh_after_seconds(
    state: RequestState, waited_seconds: float, eta: SecondsRange | None, jitter: float
) -> int | None:
    """Return when a client should ask again, 1 to 30; None in a final state.

    The interval grows with the wait: the shortest that is expected, or without an expectation the time that the client
    has waited. `jitter`, a random number from 0 to 1, spreads clients that ask at the same time.
    """
    if state in FINAL_STATES:
        return None
    interval = _REFRESH_SHARE * (eta.min if eta else waited_seconds)
    interval = min(max(interval, _MIN_REFRESH_SECONDS), _MAX_REFRESH_SECONDS)
    return round(interval + jitter * max(1.0, interval * _REFRESH_SPREAD))
