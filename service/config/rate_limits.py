"""The rate limits of requests for coupons."""

import re

from pydantic import BaseModel, Field, field_validator

from service.domain.rate_limit import MICROSECONDS, LimitScope, RateLimit, RateLimits

_PATTERN = re.compile(r"[1-9][0-9]{0,9}/[1-9][0-9]{0,9}", re.ASCII)
_MAX_SECONDS = 86_400


class RateLimitSettings(BaseModel):
    """How many requests a user, a client address and all callers may send at once, and per time."""

    rate_limit_user: str = Field(
        "10/2",
        description="requests for coupons per user: how many at once, and the seconds in which a used-up limit is"
        " refilled; 10/2: ten at once, then five a second; 0: no limit",
    )
    rate_limit_address: str = Field(
        "0", description="the same per client address (IPv6: per /64 network), for example 200/10; 0: no limit"
    )
    rate_limit_all: str = Field(
        "100000/1", description="the same for all callers of all API processes together; 0: no limit"
    )

    @field_validator("rate_limit_user", "rate_limit_address", "rate_limit_all")
    @classmethod
    def _is_rate_limit(cls, text: str) -> str:
        _parse(text)
        return text

    @property
    def rate_limits(self) -> RateLimits:
        """The limits of requests for coupons that are on."""
        texts = {
            LimitScope.USER: self.rate_limit_user,
            LimitScope.ADDRESS: self.rate_limit_address,
            LimitScope.ALL: self.rate_limit_all,
        }
        return {scope: limit for scope, text in texts.items() if (limit := _parse(text))}


def _parse(text: str) -> RateLimit | None:
    """Return the limit, or None for 0; raise ValueError."""
    if text == "0":
        return None
    if not _PATTERN.fullmatch(text):
        raise ValueError("must be 0, or requests/seconds such as 10/2, both whole numbers from 1")
    limit = RateLimit(*map(int, text.split("/")))
    if limit.seconds > _MAX_SECONDS or limit.interval_us == 0:
        raise ValueError(f"must not exceed {_MAX_SECONDS} seconds or {MICROSECONDS} requests a second")
    return limit
