"""What is read of Celery's broker, if that is Redis: its queues, and whether it takes messages."""

import time
from collections.abc import Iterable, Mapping
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from service.domain.errors import Unavailable
from service.gate.client import mapped_errors
from service.gate.keys import WRITE_CHECK_KEY, WRITE_CHECK_SECONDS

#: the name of the broker in errors
PART = "Celery's broker"


class QueueState(NamedTuple):
    """The messages of a queue that no worker has taken."""

    messages: float
    #: since the oldest one was sent; 0 without one, None if it does not say when it was sent
    age_seconds: float | None


class _Properties(Struct):
    #: seconds since 1970 UTC
    timestamp: Annotated[float, Meta(ge=0)]


class _Message(Struct):
    """What is read of a message; kombu keeps it as JSON."""

    properties: _Properties


_decoder = msgspec.json.Decoder(_Message)


def read_queues(broker: "Redis", queues: Iterable[str]) -> Mapping[str, QueueState]:
    """Return the state of each queue; raise Unavailable, also if the broker takes no messages."""
    names = list(queues)
    with mapped_errors(PART), broker.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.llen(name)
            pipe.lindex(name, -1)  # workers take from the right
        found = pipe.execute()
    require_writable(broker)
    return {
        name: QueueState(messages, _age_seconds(oldest))
        for name, messages, oldest in zip(names, found[::2], found[1::2], strict=True)
    }


def _age_seconds(oldest: bytes | None) -> float | None:
    """Return since when the message waits, by the clocks of its sender and of this machine."""
    if oldest is None:
        return 0.0
    try:
        sent_at = _decoder.decode(oldest).properties.timestamp
    except (ValueError, RecursionError):
        return None
    return max(0.0, time.time() - sent_at)


def require_writable(broker: "Redis") -> None:
    """Raise Unavailable or NotPermitted if the broker is away or refuses writes: a full one still answers reads."""
    with mapped_errors(PART):
        try:
            broker.set(WRITE_CHECK_KEY, 1, ex=WRITE_CHECK_SECONDS)
        except NoPermissionError:
            raise
        except ResponseError as error:
            raise Unavailable(PART, f"it refuses writes: {error}") from error
