"""Why the webhook's receiver did not accept the last POST that failed. Workers leave it in Redis for the alert."""

from contextlib import suppress

from redis import Redis

from service.domain.errors import Unavailable
from service.gate.client import mapped_errors
from service.gate.keys import WEBHOOK_FAILURE_KEY

#: longer than two of the longest pauses that a receiver may ask for
_KEPT_SECONDS = 660


class WebhookFailure:
    """The failure that all workers share, the latest one. One that Redis does not take is lost."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    def record(self, failure: str) -> None:
        """Replace the last failure, if Redis answers."""
        with suppress(Unavailable), mapped_errors():
            self._redis.set(WEBHOOK_FAILURE_KEY, failure, ex=_KEPT_SECONDS)

    def read(self) -> str | None:
        """Return the last failure, or None if there was none in the last eleven minutes; raise Unavailable."""
        with mapped_errors():
            stored: bytes | None = self._redis.get(WEBHOOK_FAILURE_KEY)  # type: ignore[assignment]
        return None if stored is None else stored.decode(errors="replace")
