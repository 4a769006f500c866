"""PostgreSQL crashes, locks and runs out of connections; its disk and its links have modules of their own."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from tests.faults.hands import Hands
from tests.faults.rows import row
from tests.faults.scene import Scene

_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'issuer' LIMIT 1"
_END_OTHERS = (
    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE application_name IN ('api', 'issuer', 'worker')"
)
_CONNECTIONS_MOST = 300
#: above the lock timeout of three seconds
_LOCKED_SECONDS = 7.0


@row(20, "PostgreSQL", "kill -9 of one backend", seconds=15)
def test_a_backend_is_killed(scene: Scene, hands: Hands) -> None:
    """The server ends every connection and recovers; the pools connect anew, and what was committed is there."""
    with scene.users():
        backend = scene.system.count(_BACKENDS)
        os.kill(backend, signal.SIGKILL)
        scene.system.eventually(lambda: "was terminated by signal 9" in scene.log("postgres"))
        hands.bitten(f"PID {backend}) was terminated by signal 9" in scene.log("postgres"), "a backend was killed")
        scene.recovers(since=time.monotonic())


@row(21, "PostgreSQL", "immediate stop, and kill -9 of all of it", seconds=30)
def test_it_crashes(scene: Scene, hands: Hands) -> None:
    """No checkpoint, no goodbye: what was committed is there, the rest is decided again."""
    with scene.users():
        since = time.monotonic()
        with hands.away("postgres"):
            scene.turns_red("api", "issuer")
        scene.recovers(since)
        since = time.monotonic()
        hands.gone(hands.terminate("postgres", signal.SIGQUIT))
        scene.stack.wait_up("postgres")
        scene.recovers(since)
        hands.bitten("not properly shut down" in scene.log("postgres"), "it had to recover")


@row(21, "PostgreSQL", "SIGSTOP", seconds=30)
def test_it_freezes(scene: Scene, hands: Hands) -> None:
    """Nobody is told that it is away: probes are red all the same, the gate accepts, and all go on when it wakes."""
    with scene.users() as crowd:
        with hands.frozen("postgres"):
            scene.turns_red("api", "issuer")
            before = crowd.accepted
            scene.system.eventually(lambda: crowd.accepted > before + 20)
        scene.recovers(since=time.monotonic())


@row(23, "PostgreSQL", "a coupon's row is locked for longer than the lock timeout", seconds=25)
def test_a_row_is_locked(scene: Scene, hands: Hands) -> None:
    """The partition waits, says why, and spends no attempt."""
    coupon = scene.system.make_coupon(10)
    with scene.users():
        with scene.locked(coupon):
            receipt = scene.receipt(coupon, 1)
            scene.turns_red("issuer")
            hands.bitten("LockNotAvailable" in scene.log("issuer"), "the issuer ran into the lock")
            time.sleep(_LOCKED_SECONDS)  # several tries
        scene.recovers(since=time.monotonic())
    page = scene.system.final(receipt)
    scene.demand((page["state"], page["attempts"]) == ("issued", 1), page)


@row(24, "PostgreSQL", "every connection is taken", seconds=25)
def test_no_connection_is_left(scene: Scene, hands: Hands) -> None:
    """The pools' connections are ended and somebody else takes all there are: red, bounded, and over by itself."""
    with scene.users():
        with all_connections(scene.stack.database_url) as taken:
            hands.bitten(100 < len(taken) < _CONNECTIONS_MOST, f"{len(taken)} connections were taken")
            scene.turns_red("api", "issuer")
        scene.recovers(since=time.monotonic())


@contextmanager
def all_connections(url: str) -> Iterator[list[psycopg.Connection]]:
    """Takes every connection of the server, also those that the processes have."""
    taken: list[psycopg.Connection] = []
    try:
        _take(url, taken)
        while taken[0].execute(_END_OTHERS).fetchall():
            _take(url, taken)
        yield taken
    finally:
        for connection in taken:
            connection.close()


def _take(url: str, taken: list[psycopg.Connection]) -> None:
    with suppress(psycopg.OperationalError):
        while len(taken) < _CONNECTIONS_MOST:
            taken.append(psycopg.connect(url, autocommit=True))
