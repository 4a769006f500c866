"""What issuers publish about themselves in Redis, so that every process can say why nothing is decided."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec import Struct
from redis import Redis

from service.gate.celery_broker import QueueState
from service.gate.client import clock_seconds, mapped_errors
from service.gate.keys import ISSUER_HEALTH_KEY

#: an issuer that has published nothing for so long is forgotten
_KEPT_SECONDS = 3600


class IssuerHealth(Struct, frozen=True):
    """The state of an issuer, and what it alone can see."""

    #: since its loop began its present iteration
    iteration_age_seconds: float
    #: why it is not ready, by subject
    reasons: Mapping[str, str]
    #: sum and number of the writes of batches, since the process began
    write_seconds: float
    writes: float
    #: Celery's queues; None: the broker does not answer, or cannot count messages
    queues: Mapping[str, QueueState] | None
    #: why the broker does not answer, or refuses writes
    broker_fault: str | None
    #: its reasons for alerts, by alert; an older version publishes none
    alerts: Mapping[str, str] = {}


class PublishedHealth(NamedTuple):
    """The last state that an issuer published."""

    #: by the clock of Redis
    age_seconds: float
    health: IssuerHealth


class _Entry(Struct, frozen=True):
    at_seconds: float
    health: IssuerHealth


_decoder = msgspec.json.Decoder(_Entry)


class IssuerHealthBoard:
    """The last state of each issuer. Ages are measured by the clock of Redis, which all processes share."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    def publish(self, issuer: str, health: IssuerHealth) -> None:
        """Replace the state of an issuer; raise Unavailable."""
        with mapped_errors():
            entry = _Entry(clock_seconds(self._redis.time()), health)
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.hset(ISSUER_HEALTH_KEY, issuer, msgspec.json.encode(entry))
                pipe.expire(ISSUER_HEALTH_KEY, _KEPT_SECONDS)
                pipe.execute()

    def withdraw(self, issuer: str) -> None:
        """Remove an issuer that ends; raise Unavailable."""
        with mapped_errors():
            self._redis.hdel(ISSUER_HEALTH_KEY, issuer)

    def withdraw_forgotten(self) -> None:
        """Remove the issuers that were killed long ago; raise Unavailable."""
        for issuer, entry in self._entries().items():
            if entry is None or entry.age_seconds > _KEPT_SECONDS:
                self.withdraw(issuer)

    def read(self) -> list[PublishedHealth]:
        """Return the state of each issuer; raise Unavailable. An entry of another version is left out."""
        return [entry for entry in self._entries().values() if entry is not None]

    def _entries(self) -> dict[str, PublishedHealth | None]:
        with mapped_errors(), self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(ISSUER_HEALTH_KEY)
            pipe.time()
            stored, time = pipe.execute()
        now = clock_seconds(time)
        return {issuer.decode(errors="replace"): _decoded(entry, now) for issuer, entry in stored.items()}


def _decoded(entry: bytes, now_seconds: float) -> PublishedHealth | None:
    try:
        found = _decoder.decode(entry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return PublishedHealth(max(0.0, now_seconds - found.at_seconds), found.health)
