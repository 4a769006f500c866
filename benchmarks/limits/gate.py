"""The gate's limit: Valkey runs the admission script, calls pipelined over one socket, their bytes built beforehand."""

import socket
import time
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from redis import Redis

from benchmarks.ground import IDS, Ground
from service.clock import now_ms
from service.gate.names import ADMIT, coupon_key, seats_key

_IN_FLIGHT = 20
_COUPON = 1_000_000_000
_WANTED = "seats were not taken"
_PONG = b"+PONG\r\n"
_PING = b"*1\r\n$4\r\nPING\r\n"


def measure(ground: Ground, seats: int) -> dict[str, float]:
    """Seats taken per second: one a call, and a hundred a call."""
    return {
        "limit_gate_per_second": seats / _seconds(ground, seats, 1),
        "limit_gate_gathered_per_second": seats / _seconds(ground, seats, 100),
    }


def _seconds(ground: Ground, seats: int, at_once: int) -> float:
    with Redis.from_url(ground.stack.redis_url) as redis:
        redis.delete(seats_key(_COUPON))
        window = {"capacity": str(seats), "opens": "", "closes": "", "override": "none"}
        redis.hset(coupon_key(_COUPON), mapping=window)
        sha = redis.script_load(ADMIT)
        calls = [_call(sha, range(first, min(first + at_once, seats))) for first in range(0, seats, at_once)]
        seconds = _run(ground.stack.redis_url, calls)
        assert redis.hlen(seats_key(_COUPON)) == seats, _WANTED
    return seconds


def _call(sha: str, users: Iterable[int]) -> bytes:
    at_ms = now_ms()
    asked = [(_COUPON, user + 1, IDS.mint(_COUPON, user + 1, at_ms)) for user in users]
    words = ["EVALSHA", sha, 0, at_ms, *(word for one in asked for word in one)]
    return b"*%d\r\n" % len(words) + b"".join(_bulk(str(word).encode()) for word in words)


def _bulk(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)


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
