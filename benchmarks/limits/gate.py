"""The gate's limit: Valkey runs the admission script. Calls are pipelined over one socket, built beforehand."""

import asyncio
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha1
from typing import cast
from urllib.parse import urlsplit

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from benchmarks.environment import IDS, Environment
from service.clock import now_ms
from service.domain.errors import Unavailable
from service.gate.async_gate import AsyncGate, SeatRequest
from service.gate.gate_admin import GateAdmin
from service.gate.keys import ADMIT, seats_key
from service.store import coupons

_CALLS_IN_FLIGHT = 20
_PING = b"*1\r\n$4\r\nPING\r\n"
_PONG = b"+PONG\r\n"
_OK = b"+OK\r\n"


def measure(environment: Environment, seats: int) -> dict[str, float]:
    """Return seats taken per second: with one seat per call, and with a hundred per call."""
    return {
        "limit_gate_per_second": seats / _seconds(environment, seats, 1),
        "limit_gate_batched_per_second": seats / _seconds(environment, seats, 100),
    }


def _seconds(environment: Environment, seats: int, batch_size: int) -> float:
    """Take all seats of a new coupon and return the seconds; raise AssertionError if a seat was not taken."""
    coupon_id = environment.create_coupon(seats)
    with environment.store.begin() as tx:
        coupon = coupons.get_many(tx, [coupon_id])[coupon_id]
    with Redis.from_url(environment.stack.redis_url) as redis:
        redis.script_load(ADMIT)
        GateAdmin(redis).fill(coupon, ())
        seconds = _run(environment.stack.redis_url, asyncio.run(_build_calls(coupon_id, seats, batch_size)))
        assert redis.hlen(seats_key(coupon_id)) == seats, "not all seats were taken"
    return seconds


class _RecordingScript:
    """Replaces a registered script of the Redis client: it keeps the bytes of each call and sends nothing."""

    def __init__(self, text: str) -> None:
        self._sha = sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.calls: list[bytes] = []

    async def __call__(self, args: Sequence[object]) -> None:
        words = [word if isinstance(word, bytes) else str(word).encode() for word in args]
        self.calls.append(_encode_command([b"EVALSHA", self._sha.encode(), b"0", *words]))
        raise RedisError("recorded, not sent")


class _RecordingRedis:
    """The part of a Redis client that AsyncGate uses in its constructor."""

    def __init__(self) -> None:
        self.scripts: dict[str, _RecordingScript] = {}

    def register_script(self, text: str) -> _RecordingScript:
        return self.scripts.setdefault(text, _RecordingScript(text))


async def _build_calls(coupon_id: int, seats: int, batch_size: int) -> list[bytes]:
    """Return the bytes of each call, as AsyncGate would send it."""
    redis, at_ms = _RecordingRedis(), now_ms()
    gate = AsyncGate(cast(AsyncRedis, redis))
    users = range(1, seats + 1)
    requests = [SeatRequest(coupon_id, user, IDS.mint(coupon_id, user, at_ms), at_ms) for user in users]
    for first in range(0, seats, batch_size):
        with suppress(Unavailable):
            await gate.admit(requests[first : first + batch_size])
    return redis.scripts[ADMIT].calls


def _encode_command(words: Sequence[bytes]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _run(url: str, calls: Sequence[bytes]) -> float:
    """Send all calls and return the seconds. A PING after each group: its response follows those of the group."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(_encode_command([b"AUTH", (address.password or "").encode()]))
        assert connection.recv(len(_OK)) == _OK, "the password was refused"
        began = time.monotonic()
        for first in range(0, len(calls), _CALLS_IN_FLIGHT):
            connection.sendall(b"".join(calls[first : first + _CALLS_IN_FLIGHT]) + _PING)
            tail = b""
            while not tail.endswith(_PONG):
                tail = (tail + connection.recv(1 << 20))[-len(_PONG) :]
        return time.monotonic() - began
