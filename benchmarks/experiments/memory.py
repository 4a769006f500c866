"""Experiment `memory`: resident memory of the API under load, and what one connection that never sends a request adds.

It uses HTTP only, so that it can measure the API of any commit.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import sleep
from typing import NamedTuple

from benchmarks import decisions
from benchmarks.checkout import WORK_TREE, Checkout
from benchmarks.environment import Environment, start_environment
from benchmarks.experiments.common import UNLIMITED, Experiment
from benchmarks.figures import Figures
from benchmarks.load.coupons import create_coupon
from benchmarks.load.http_load import run_closed_model

_CONNECTIONS_UNDER_LOAD = 512
_SAMPLE_SECONDS = 0.05
#: after the last connection has sent its bytes; shorter than a server's timeout for a request
_SETTLE_SECONDS = 1.0
_SEND_TIMEOUT_SECONDS = 1.0
_HEAD = b"POST /coupons/1/issuances HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_HEADER_OF_1_KB = b"X-Filler: " + 1012 * b"a" + b"\r\n"

HOSTILE = {
    "silent": b"",
    "half_head": _HEAD,
    "half_body": _HEAD + b'Content-Length: 13\r\n\r\n{"user',
    "endless_head": _HEAD + 256 * _HEADER_OF_1_KB,
}
"""What a connection sends before it falls silent, by its name in figures."""


class Size(NamedTuple):
    """Seconds of load, and hostile connections of each kind."""

    seconds: float
    connections: int


def measure(directory: Path, size: Size, rounds: int, checkout: Checkout = WORK_TREE) -> Iterator[Figures]:
    """Yield the figures of each round; the API is restarted before each of them."""
    with start_environment(directory, checkout=checkout) as environment:
        port = environment.start_api()
        environment.start_issuer()
        for _ in range(rounds):
            figures = memory_under_load(environment, port, size.seconds)
            for name, sent in HOSTILE.items():
                figures[f"{name}_connection_kb"] = connection_kb(environment, port, size.connections, sent)
            yield figures


def memory_under_load(environment: Environment, port: int, seconds: float) -> dict[str, float]:
    """Return the memory of the restarted API, and its maximum while requests are accepted."""
    _restart(environment, port)
    before = environment.resident_mb("api")
    coupon_id = create_coupon(port, UNLIMITED)
    with _sampled_memory(environment) as samples:
        result = run_closed_model(port, coupon_id, seconds, _CONNECTIONS_UNDER_LOAD)
    decisions.wait_for_issued(environment, coupon_id, len(result.due))
    return {"before_load_mb": before, "under_load_mb": max(samples)}


def connection_kb(environment: Environment, port: int, connections: int, sent: bytes) -> float:
    """Return the kilobytes by which the memory of the restarted API grows for each of so many hostile connections."""
    _restart(environment, port)
    before = environment.resident_mb("api")
    with ExitStack() as opened:
        for _ in range(connections):
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.settimeout(_SEND_TIMEOUT_SECONDS)
            with suppress(OSError):  # the server may close the connection, or stop reading
                connection.sendall(sent)
        sleep(_SETTLE_SECONDS)
        grown = environment.resident_mb("api") - before
    return grown * 1000 / connections


def _restart(environment: Environment, port: int) -> None:
    """Restart the API and send it requests for a second, so that what it allocates once is allocated."""
    environment.stack.restart("api")
    coupon_id = create_coupon(port, UNLIMITED)
    result = run_closed_model(port, coupon_id, 1, 64)
    decisions.wait_for_issued(environment, coupon_id, len(result.due))


@contextmanager
def _sampled_memory(environment: Environment) -> Iterator[list[float]]:
    """Sample the API's resident memory in megabytes while the block runs."""
    samples: list[float] = [environment.resident_mb("api")]
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(_SAMPLE_SECONDS):
            samples.append(environment.resident_mb("api"))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


EXPERIMENT = Experiment(
    name="memory",
    description="Memory of the API: under load, and for each connection that never completes a request.",
    measure=measure,
    full=Size(4.0, 400),
    quick=None,
    rounds=3,
    any_commit=True,
)
