"""The Redis client: its settings, and what its errors mean to the rest of the service."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from service.domain.errors import Unavailable
from service.domain.failures import FailureClass, register

_TIMEOUT_SECONDS = 1.0
_OPTIONS: dict[str, Any] = {
    "socket_timeout": _TIMEOUT_SECONDS,
    "socket_connect_timeout": _TIMEOUT_SECONDS,
    "socket_keepalive": True,
    "health_check_interval": 10,
}

register(FailureClass.SYSTEM, RedisError)


def build_client(redis_url: str) -> "Redis":
    """Return a client for threads and commands; it connects at first use."""
    return Redis.from_url(redis_url, **_OPTIONS)


def build_async_client(redis_url: str) -> "AsyncRedis":
    """Return a client for asyncio; it connects at first use."""
    return AsyncRedis.from_url(redis_url, **_OPTIONS)


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Raise Unavailable instead of the client's errors."""
    try:
        yield
    except RedisError as error:
        raise Unavailable("Redis", str(error)) from error
