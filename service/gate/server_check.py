"""Checks a Redis server for `coupons doctor`: whether it answers, accepts writes and keeps keys, and its clock."""

from typing import Any

from redis import Redis

from service.gate import celery_broker
from service.gate.client import eviction_fault, mapped_errors
from service.gate.keys import CHECK_WRITABLE, WRITE_CHECK_KEY, WRITE_CHECK_SECONDS


class RedisServerCheck:
    """Asks one server; every call raises Unavailable, or NotPermitted for a refused right."""

    def __init__(self, redis: "Redis", part: str = "Redis") -> None:
        """`part` is the name of the server in errors."""
        self._redis = redis
        self._part = part

    def version(self) -> str:
        """Return the name and version of the server, which must answer."""
        with mapped_errors(self._part):
            info: Any = self._redis.info("server")
        return f"{info.get('server_name', 'redis')} {info.get('valkey_version', info.get('redis_version'))}"

    def eviction_fault(self) -> str | None:
        """Return what is wrong with the eviction policy, or None."""
        with mapped_errors(self._part):
            info: Any = self._redis.info("memory")
        return eviction_fault(info)

    def require_writable(self) -> None:
        """Write as the gate's scripts do."""
        with mapped_errors(self._part):
            self._redis.register_script(CHECK_WRITABLE)(args=[WRITE_CHECK_KEY, WRITE_CHECK_SECONDS])

    def require_takes_messages(self) -> None:
        """Write as Celery does; the error says that the broker refuses writes."""
        celery_broker.require_writable(self._redis)

    def clock_ms(self) -> int:
        """Return the server's clock, milliseconds since 1970 UTC."""
        with mapped_errors(self._part):
            seconds, microseconds = self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000
