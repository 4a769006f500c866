"""The gate's limit: Valkey runs the admission script, calls pipelined over one socket, their bytes built beforehand."""

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

from benchmarks.ground import IDS, Ground
from service.clock import now_ms
from service.domain.errors import Unavailable
from service.gate.async_gate import AsyncGate, SeatRequest
from service.gate.gate_admin import GateAdmin
from service.gate.keys import ADMIT, seats_key
from service.store import coupons

_IN_FLIGHT = 20
_PONG = b"+PONG\r\n"
_PING = b"*1\r\n$4\r\nPING\r\n"


def measure(ground: Ground, seats: int) -> dict[str, float]:
    """Seats taken per second: one a call, and a hundred a call."""
    return {
        "limit_gate_per_second": seats / _seconds(ground, seats, 1),
        "limit_gate_gathered_per_second": seats / _seconds(ground, seats, 100),
    }


def _seconds(ground: Ground, seats: int, at_once: int) -> float:
    coupon_id = ground.coupon(seats)
    with Redis.from_url(ground.stack.redis_url) as redis, ground.store.begin() as tx:
        redis.script_load(ADMIT)
        GateAdmin(redis).fill(coupons.get_many(tx, [coupon_id])[coupon_id], ())
        seconds = _run(ground.stack.redis_url, asyncio.run(_calls(coupon_id, seats, at_once)))
        assert redis.hlen(seats_key(coupon_id)) == seats, "seats were not taken"
    return seconds


class _Script:
    """Stands where the gate's client keeps a script of Redis, and writes down what it would be called with."""

    def __init__(self, text: str) -> None:
        self._sha = sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.calls: list[bytes] = []

    async def __call__(self, args: Sequence[object]) -> None:
        words = [word if isinstance(word, bytes) else str(word).encode() for word in args]
        self.calls.append(_command([b"EVALSHA", self._sha.encode(), b"0", *words]))
        raise RedisError("written down, not sent")


class _Scripts:
    """As much of a Redis client as the gate's client asks for when it is built."""

    def __init__(self) -> None:
        self.by_text: dict[str, _Script] = {}

    def register_script(self, text: str) -> _Script:
        return self.by_text.setdefault(text, _Script(text))


async def _calls(coupon_id: int, seats: int, at_once: int) -> list[bytes]:
    """The bytes of each call, as the gate's own client would send it."""
    scripts, at_ms = _Scripts(), now_ms()
    gate = AsyncGate(cast(AsyncRedis, scripts))
    users = range(1, seats + 1)
    asked = [SeatRequest(coupon_id, user, IDS.mint(coupon_id, user, at_ms), at_ms) for user in users]
    for first in range(0, seats, at_once):
        with suppress(Unavailable):
            await gate._admit_many(asked[first : first + at_once])  # noqa: SLF001  # past the gathering
    return scripts.by_text[ADMIT].calls


def _command(words: Sequence[bytes]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _run(url: str, calls: Sequence[bytes]) -> float:
    """Seconds for all calls; a PING behind each group tells by its answer that the group has been answered."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port)) as wire:
        began = time.monotonic()
        for first in range(0, len(calls), _IN_FLIGHT):
            wire.sendall(b"".join(calls[first : first + _IN_FLIGHT]) + _PING)
            _read_until_pong(wire)
        return time.monotonic() - began


def _read_until_pong(wire: socket.socket) -> None:
    tail = b""
    while not tail.endswith(_PONG):
        tail = (tail + wire.recv(1 << 20))[-len(_PONG) :]
