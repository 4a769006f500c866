"""Counts of what Celery's workers did, kept in Redis because these processes have no port for Prometheus."""

from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum

from redis import Redis

from service.domain.errors import Unavailable
from service.gate.client import mapped_errors
from service.gate.keys import TASK_COUNTS_KEY, parse_number


class TaskCount(StrEnum):
    """What is counted."""

    #: by outcome
    WEBHOOK_ATTEMPTS = "webhook_attempts"
    #: by the number of the attempt
    RETRY_ATTEMPTS = "retry_attempts"


class TaskCounts:
    """Counts that all workers share. One that Redis does not take is lost; a loss of Redis's data resets them."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    def add(self, count: TaskCount, label: str, number: int = 1) -> None:
        """Add to the count with this label, if Redis answers."""
        with suppress(Unavailable), mapped_errors():
            self._redis.hincrby(TASK_COUNTS_KEY, f"{count}:{label}", number)

    def read(self) -> Mapping[TaskCount, Mapping[str, int]]:
        """Return all counts by label; raise Unavailable."""
        with mapped_errors():
            stored: dict[bytes, bytes] = self._redis.hgetall(TASK_COUNTS_KEY)  # type: ignore[assignment]
        found: dict[TaskCount, dict[str, int]] = {count: {} for count in TaskCount}
        for field, number in stored.items():
            name, _, label = field.decode(errors="replace").partition(":")
            if name in found:  # another version may count more
                found[TaskCount(name)][label] = parse_number(number) or 0
        return found
