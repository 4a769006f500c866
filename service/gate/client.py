"""The Redis clients: their settings, what their errors mean, and which errors end a connection."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from redis import Connection, ConnectionPool, Redis
from redis.asyncio import Connection as AsyncConnection
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError
from redis.retry import Retry

from service.domain.errors import NotPermitted, Unavailable
from service.domain.failures import FailureClass, register

_TIMEOUT_SECONDS = 1.0
_OPTIONS: dict[str, Any] = {
    "socket_timeout": _TIMEOUT_SECONDS,
    "socket_connect_timeout": _TIMEOUT_SECONDS,
    "socket_keepalive": True,
    "health_check_interval": 10,
}
#: Errors after which redis-py closes the connection. Its own list has network errors only, so a connection would stay
#: with a server that answers every write with READONLY, NOREPLICAS, MASTERDOWN or NOPERM: after a failover only a new
#: connection reaches the server that can write. A new connection costs less than a list of the answers to tell apart.
_CONNECTION_ENDING = (RedisError, OSError)
#: what a Redis server does when its memory is full: with any other policy it deletes keys, such as seats
_REQUIRED_POLICY = "noeviction"
_REFUSALS = (NoPermissionError, AuthenticationError, AuthorizationError)

register(FailureClass.SYSTEM, RedisError)


class _Pool(ConnectionPool):
    """A pool in which a connection that an error ended takes the idle ones along: they have the same server."""

    def release(self, connection: "Connection") -> None:  # type: ignore[override]
        """Take a connection back."""
        if not connection.is_connected:
            self.disconnect(inuse_connections=False)
        super().release(connection)


class _AsyncPool(AsyncConnectionPool):
    """The same for asyncio."""

    async def release(self, connection: "AsyncConnection") -> None:  # type: ignore[override]
        """Take a connection back."""
        if not connection.is_connected:
            with suppress(RedisError):
                await self.disconnect(inuse_connections=False)
        await super().release(connection)


def build_client(redis_url: str) -> "Redis":
    """Return a client for threads and commands; it connects at first use and never retries."""
    return Redis.from_pool(_Pool.from_url(redis_url, retry=Retry(NoBackoff(), 0, _CONNECTION_ENDING), **_OPTIONS))


def build_async_client(redis_url: str) -> "AsyncRedis":
    """Return a client for asyncio; it connects at first use and never retries."""
    retry = AsyncRetry(NoBackoff(), 0, _CONNECTION_ENDING)  # type: ignore[arg-type]  # OSError is caught as well
    return AsyncRedis.from_pool(_AsyncPool.from_url(redis_url, retry=retry, **_OPTIONS))


def eviction_fault(info: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the server's eviction policy, from its INFO; None if nothing is, or it does not say."""
    policy = info.get("maxmemory_policy", _REQUIRED_POLICY)
    if policy == _REQUIRED_POLICY:
        return None
    return f"its maxmemory-policy is {policy}, so it may delete seats: set it to {_REQUIRED_POLICY}"


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Raise NotPermitted or Unavailable instead of the client's errors."""
    try:
        yield
    except _REFUSALS as error:
        raise NotPermitted("Redis", str(error)) from error
    except RedisError as error:
        raise Unavailable("Redis", str(error)) from error
