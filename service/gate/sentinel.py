"""Asks Redis Sentinels which server is the primary."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import MasterNotFoundError, Sentinel

Client = TypeVar("Client")


class Sentinels(Sentinel):
    """Finds the primary: redis-py's own search loses Sentinels if several threads use it, and says little if it fails.

    The list is replaced and not changed, because others may be reading it.
    """

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return the address of the primary; raise MasterNotFoundError with the reason of each Sentinel."""
        reasons = []
        for sentinel in self.sentinels:
            try:
                found = _primary_of(sentinel.sentinel_masters(), service_name)
            except (RedisConnectionError, RedisTimeoutError) as error:
                reasons.append(_reason(sentinel, error))
                continue
            self.sentinels = _with_first(sentinel, self.sentinels)
            return found
        raise MasterNotFoundError("; ".join(reasons))


class AsyncSentinels(AsyncSentinel):
    """The same for asyncio."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return the address of the primary; raise MasterNotFoundError with the reason of each Sentinel."""
        reasons = []
        for sentinel in self.sentinels:
            try:
                found = _primary_of(await sentinel.sentinel_masters(), service_name)
            except (RedisConnectionError, RedisTimeoutError) as error:
                reasons.append(_reason(sentinel, error))
                continue
            self.sentinels = _with_first(sentinel, self.sentinels)
            return found
        raise MasterNotFoundError("; ".join(reasons))


def _primary_of(masters: Any, name: str) -> tuple[str, int]:
    """Return the address of a primary in a Sentinel's answer, which is by name; raise MasterNotFoundError."""
    state: Mapping[str, Any] | None = masters.get(name)
    if state is None:
        raise MasterNotFoundError(f"watches no primary called {name}")
    if not state["is_master"] or state["is_sdown"] or state["is_odown"]:
        raise MasterNotFoundError(f"sees that the primary {state['ip']}:{state['port']} is down")
    return str(state["ip"]), int(state["port"])


def _reason(sentinel: "Redis | AsyncRedis", error: Exception) -> str:
    options = sentinel.connection_pool.connection_kwargs
    return f"Sentinel {options['host']}:{options['port']}: {error}"


def _with_first(first: Client, clients: Sequence[Client]) -> list[Client]:
    """Return the list with the client that answered at the front: it is asked first the next time."""
    return [first, *(client for client in clients if client is not first)]
