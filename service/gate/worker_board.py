"""Which Celery workers run: each notes in Redis when it last sent a heartbeat."""

from collections.abc import Mapping

from redis import Redis

from service.gate.client import clock_seconds, mapped_errors
from service.gate.keys import WORKERS_KEY

#: a worker that has sent no heartbeat for so long is forgotten; a new container has a new name
_KEPT_SECONDS = 60


class WorkerBoard:
    """The last heartbeat of each worker, by the clock of Redis, which all processes share."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    def record(self, worker: str) -> None:
        """Note that a worker has sent a heartbeat, and forget those that were killed; raise Unavailable."""
        with mapped_errors():
            now = clock_seconds(self._redis.time())
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.zadd(WORKERS_KEY, {worker: now})
                pipe.zremrangebyscore(WORKERS_KEY, "-inf", now - _KEPT_SECONDS)
                pipe.execute()

    def withdraw(self, worker: str) -> None:
        """Forget a worker that ends; raise Unavailable."""
        with mapped_errors():
            self._redis.zrem(WORKERS_KEY, worker)

    def ages(self) -> Mapping[str, float]:
        """Return the seconds since the last heartbeat of each worker, by its name; raise Unavailable."""
        with mapped_errors(), self._redis.pipeline(transaction=False) as pipe:
            pipe.zrangebyscore(WORKERS_KEY, "-inf", "+inf", withscores=True)
            pipe.time()
            found, time = pipe.execute()
        ages = {name.decode(errors="replace"): max(0.0, clock_seconds(time) - at) for name, at in found}
        return {name: age for name, age in ages.items() if age <= _KEPT_SECONDS}
