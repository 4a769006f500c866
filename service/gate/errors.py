"""What a silent Redis is to the rest of the service."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from service.domain.errors import Unavailable


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Turns Redis's errors into Unavailable."""
    try:
        yield
    except RedisError as error:
        raise Unavailable("Redis", str(error)) from error
