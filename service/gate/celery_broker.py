"""What is read of Celery's broker, if that is Redis: the lengths of its queues, and whether it takes messages."""

from collections.abc import Iterable, Mapping

from redis import Redis

from service.domain.errors import NotPermitted, Unavailable
from service.gate.client import mapped_errors
from service.gate.keys import WRITE_CHECK_KEY, WRITE_CHECK_SECONDS


def queue_lengths(broker: "Redis", queues: Iterable[str]) -> Mapping[str, float]:
    """Return the number of messages in each queue; raise Unavailable, also if the broker takes no messages."""
    names = list(queues)
    with mapped_errors(), broker.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.llen(name)
        lengths = dict(zip(names, pipe.execute(), strict=True))
    require_writable(broker)
    return lengths


def require_writable(broker: "Redis") -> None:
    """Raise Unavailable or NotPermitted if the broker refuses writes: one that is full or read-only still answers."""
    try:
        with mapped_errors():
            broker.set(WRITE_CHECK_KEY, 1, ex=WRITE_CHECK_SECONDS)
    except NotPermitted:
        raise
    except Unavailable as error:
        raise Unavailable("Celery's broker", f"it refuses writes: {error.__cause__}") from error
