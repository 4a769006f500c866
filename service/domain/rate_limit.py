"""Rate limits by the generic cell rate algorithm (GCRA): how many requests a caller may send, and when again."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

MICROSECONDS = 1_000_000
_MAX_STATES = 100_000


class LimitScope(StrEnum):
    """Whose requests a limit counts together."""

    USER = "user"
    ADDRESS = "address"
    ALL = "all"


class RateLimit(NamedTuple):
    """So many requests at once; a used-up burst is refilled evenly, request by request, within `seconds`."""

    requests: int
    seconds: int

    @property
    def interval_us(self) -> int:
        """Microseconds after which the limit has room for one more request, rounded down."""
        return self.seconds * MICROSECONDS // self.requests

    @property
    def burst_us(self) -> int:
        """Microseconds in which a used-up burst is refilled."""
        return self.interval_us * self.requests


RateLimits = Mapping[LimitScope, RateLimit]


class Exceeded(NamedTuple):
    """A limit that has no room for a request."""

    scope: LimitScope
    limit: RateLimit
    #: microseconds until it has room
    wait_us: int


class LocalLimiter:
    """Charges requests to the limits of this process, where the gate cannot: as service/gate/lua/new_limiter.lua does.

    It keeps the theoretical arrival time of the next request for each user and address, in the order of their last
    requests. Those of the past mean nothing and are dropped; of more than _MAX_STATES the oldest are.
    """

    def __init__(self, limits: RateLimits, now_us: Callable[[], int]) -> None:
        """`now_us`: the time in microseconds, of a clock that is never set back."""
        self._limits = limits
        self._now_us = now_us
        self._arrivals: dict[tuple[LimitScope, int | str], int] = {}

    def charge(self, user_id: int, address: str) -> Exceeded | None:
        """Charge one request to every limit; return None, or the exceeded limit: then no limit is charged.

        address: of the client; empty if requests are not limited by address.
        """
        now_us = self._now_us()
        keys: dict[LimitScope, int | str] = {LimitScope.USER: user_id, LimitScope.ADDRESS: address, LimitScope.ALL: ""}
        charged: list[tuple[tuple[LimitScope, int | str], int]] = []
        for scope, limit in self._limits.items():
            if scope is LimitScope.ADDRESS and not address:
                continue
            key = scope, keys[scope]
            arrival = max(self._arrivals.get(key, 0), now_us) + limit.interval_us
            if (wait_us := arrival - limit.burst_us - now_us) > 0:
                return Exceeded(scope, limit, wait_us)
            charged.append((key, arrival))
        for key, arrival in charged:
            self._arrivals.pop(key, None)
            self._arrivals[key] = arrival
        while self._arrivals:  # the oldest are dropped: those that limit nothing any more, and those above the maximum
            oldest = next(iter(self._arrivals))
            if self._arrivals[oldest] > now_us and len(self._arrivals) <= _MAX_STATES:
                break
            del self._arrivals[oldest]
        return None
