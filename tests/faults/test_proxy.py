"""Tests of the proxy: each of its modes has an effect, without which the rows that use it would prove nothing."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from stack import ports
from stack.server_env import LOOPBACK
from tests.faults.proxy import Direction, Proxy
from tests.waiting import eventually

_SECONDS = 0.3


@pytest.fixture
def received() -> list[bytes]:
    """What the server has received."""
    return []


@pytest.fixture
def proxy(received: list[bytes]) -> Iterator[Proxy]:
    """A proxy in front of an echo server."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        threading.Thread(target=_serve, args=(listener, received), daemon=True).start()
        with Proxy(ports.any_free(), listener.getsockname()[1]) as proxy:
            yield proxy


def test_forward(proxy: Proxy, received: list[bytes]) -> None:
    """Data arrives in both directions; the end of the client's stream ends the server's, and the reverse."""
    with connect(proxy) as client:
        assert echo(client, b"hello") == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
    assert received == [b"hello"]
    assert proxy.counts["reset"] == 0


def test_delay(proxy: Proxy) -> None:
    """Each direction has the latency, two in total, and only inside the block."""
    with connect(proxy) as client:
        began = time.monotonic()
        with proxy.delaying(_SECONDS, jitter=_SECONDS / 10):
            assert echo(client, b"slow") == b"slow"
        assert time.monotonic() - began > _SECONDS
        assert proxy.counts["delayed"] == 2


@pytest.mark.parametrize(
    ("directions", "arrives"), [((), False), ((Direction.TO_SERVER,), False), ((Direction.TO_CLIENT,), True)]
)
def test_black_hole(proxy: Proxy, received: list[bytes], directions: tuple[Direction, ...], *, arrives: bool) -> None:
    """No error and no data; towards the client only, the server receives and the client does not."""
    with connect(proxy) as client:
        assert echo(client, b"before") == b"before"
        with proxy.black_hole(*directions):
            client.settimeout(_SECONDS)
            with pytest.raises(TimeoutError):
                echo(client, b"held")
            assert (b"held" in received) is arrives
        client.settimeout(5)
        assert client.recv(10) == b"held"
        assert proxy.counts["held"] == 1


def test_black_hole_for_a_new_connection(proxy: Proxy) -> None:
    """A new connection is accepted and gets no data."""
    with proxy.black_hole(), connect(proxy) as client:
        client.settimeout(_SECONDS)
        with pytest.raises(TimeoutError):
            echo(client, b"held")


def test_reset(proxy: Proxy) -> None:
    """A reset, not an end of stream, for open connections and for new ones inside the block."""
    with connect(proxy) as client:
        assert echo(client, b"before") == b"before"
        with proxy.resetting():
            with pytest.raises(ConnectionResetError):
                client.recv(10)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                echo_on_new_connection(proxy, b"reset")
    assert echo_on_new_connection(proxy, b"after") == b"after"


def test_refuse(proxy: Proxy) -> None:
    """New connections are refused, and open ones are reset."""
    with connect(proxy) as client:
        assert echo(client, b"before") == b"before"
        with proxy.refusing():
            with pytest.raises(ConnectionResetError):
                client.recv(10)
            with pytest.raises(ConnectionRefusedError):
                connect(proxy)
    assert echo_on_new_connection(proxy, b"after") == b"after"


def test_drop_response(proxy: Proxy, received: list[bytes]) -> None:
    """The server receives the statement and responds; the client is reset, once, on the matching connection only."""
    with connect(proxy) as client, connect(proxy) as other:
        proxy.drop_response(to=b"COMMIT", after=b"COPY")
        assert echo(client, b"COPY") == b"COPY"
        assert echo(other, b"COMMIT") == b"COMMIT"
        with pytest.raises(ConnectionResetError):
            echo(client, b"COMMIT")
        eventually(lambda: received.count(b"COMMIT") == 2)
        assert proxy.counts["responses dropped"] == 1
    with connect(proxy) as later:
        assert echo(later, b"COPY") == b"COPY"
        assert echo(later, b"COMMIT") == b"COMMIT"


def connect(proxy: Proxy) -> socket.socket:
    """Open a connection through the proxy."""
    return socket.create_connection((LOOPBACK, proxy.port), timeout=5)


def echo(client: socket.socket, data: bytes) -> bytes:
    """Send data and return the response."""
    client.sendall(data)
    return client.recv(100)


def echo_on_new_connection(proxy: Proxy, data: bytes) -> bytes:
    """Send data on a new connection and return the response."""
    with connect(proxy) as client:
        return echo(client, data)


def _serve(listener: socket.socket, received: list[bytes]) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve_connection, args=(client, received), daemon=True).start()


def _serve_connection(client: socket.socket, received: list[bytes]) -> None:
    with client:
        try:
            while data := client.recv(100):
                received.append(data)
                client.sendall(data)
        except OSError:
            return
