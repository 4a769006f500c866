"""The Redis clients: their settings, what their errors mean, and which errors end a connection."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from redis import Connection, ConnectionPool, Redis
from redis.asyncio import Connection as AsyncConnection
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from service.config import redis_url
from service.config.redis_options import tls_options
from service.config.redis_url import RedisUrl
from service.domain.errors import NotPermitted, Unavailable
from service.domain.failures import FailureClass, register
from service.gate.sentinel import AsyncSentinels, Sentinels

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


class _SentinelPool(_Pool, SentinelConnectionPool):
    """A pool whose new connections lead to the server that is the primary at that time."""

    def close(self) -> None:
        """Close the connections, those to the Sentinels too."""
        super().close()
        self.sentinel_manager.close()


class _AsyncSentinelPool(_AsyncPool, AsyncSentinelConnectionPool):
    """The same for asyncio."""

    async def aclose(self) -> None:
        """Close the connections, those to the Sentinels too."""
        await super().aclose()
        await self.sentinel_manager.aclose()


def build_client(url: str) -> "Redis":
    """Return a client for threads and commands; it connects at first use and never retries."""
    retry = Retry(NoBackoff(), 0, _CONNECTION_ENDING)
    address = redis_url.parse(url)
    if not address.sentinels:
        return Redis.from_pool(_Pool.from_url(url, retry=retry, **_OPTIONS))
    sentinels = Sentinels(address.sentinels, sentinel_kwargs=sentinel_options(address))  # type: ignore[no-untyped-call]
    options = {**_primary_options(address), "retry": retry}
    return Redis.from_pool(_SentinelPool(address.master_name, sentinels, **options))  # type: ignore[no-untyped-call]


def build_async_client(url: str) -> "AsyncRedis":
    """Return a client for asyncio; it connects at first use and never retries."""
    retry = AsyncRetry(NoBackoff(), 0, _CONNECTION_ENDING)  # type: ignore[arg-type]  # OSError is caught as well
    address = redis_url.parse(url)
    if not address.sentinels:
        return AsyncRedis.from_pool(_AsyncPool.from_url(url, retry=retry, **_OPTIONS))
    of_sentinels = {**sentinel_options(address), "retry": AsyncRetry(NoBackoff(), 0)}
    sentinels = AsyncSentinels(address.sentinels, sentinel_kwargs=of_sentinels)  # type: ignore[no-untyped-call]
    options = {**_primary_options(address), "retry": retry}
    return AsyncRedis.from_pool(_AsyncSentinelPool(address.master_name, sentinels, **options))  # type: ignore[no-untyped-call]


def sentinel_options(address: RedisUrl) -> dict[str, Any]:
    """Return the options of connections to the Sentinels of a URL, also of Celery's; TLS is that of the primary.

    They are asked one after the other, so all of them together get the time for one connection.
    """
    each = _TIMEOUT_SECONDS / len(address.sentinels)
    return {
        **_OPTIONS,
        "socket_timeout": each,
        "socket_connect_timeout": each,
        "ssl": address.server.startswith("rediss://"),
        **tls_options(address.server),
        **address.sentinel_login,
        "retry": Retry(NoBackoff(), 0),  # the next Sentinel is asked; by default redis-py waits for seconds
    }


def _primary_options(address: RedisUrl) -> dict[str, Any]:
    """Return the options of connections to the primary, without an address."""
    options = {**_OPTIONS, **parse_url(address.server)}  # type: ignore[no-untyped-call]
    for name in ("host", "port", "connection_class"):
        options.pop(name, None)
    return {**options, "ssl": address.server.startswith("rediss://")}


def eviction_fault(info: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the server's eviction policy, from its INFO; None if nothing is, or it does not say."""
    policy = info.get("maxmemory_policy", _REQUIRED_POLICY)
    if policy == _REQUIRED_POLICY:
        return None
    return f"its maxmemory-policy is {policy}, so it may delete seats: set it to {_REQUIRED_POLICY}"


def clock_seconds(time: tuple[int, int]) -> float:
    """Return the time that the command TIME answered, in seconds since 1970 UTC."""
    seconds, microseconds = time
    return seconds + microseconds / 1e6


@contextmanager
def mapped_errors(part: str = "Redis") -> Iterator[None]:
    """Raise NotPermitted or Unavailable instead of the client's errors; `part` is the server, by default the gate's."""
    try:
        yield
    except _REFUSALS as error:
        raise NotPermitted(part, str(error)) from error
    except RedisError as error:
        raise Unavailable(part, str(error)) from error
