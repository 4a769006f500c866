"""Each mode of the proxy bites, or rows that use it would show nothing."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from stack import ports
from stack.parts.surroundings import LOOPBACK
from tests.faults.proxy import Proxy, Way
from tests.waiting import eventually

_SECONDS = 0.3


@pytest.fixture
def heard() -> list[bytes]:
    """What the server was told."""
    return []


@pytest.fixture
def proxy(heard: list[bytes]) -> Iterator[Proxy]:
    """A proxy before a server that says everything back."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        threading.Thread(target=_echo, args=(listener, heard), daemon=True).start()
        with Proxy(ports.any_free(), listener.getsockname()[1]) as proxy:
            yield proxy


def test_it_passes(proxy: Proxy, heard: list[bytes]) -> None:
    """Bytes arrive and are answered; the client's end is the server's, and the other way round."""
    with connected(proxy) as client:
        assert said(client, b"hello") == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
    assert heard == [b"hello"]
    assert proxy.felt["cut"] == 0


def test_it_delays(proxy: Proxy) -> None:
    """There and back, twice the latency, and no more once it is over."""
    with connected(proxy) as client:
        began = time.monotonic()
        with proxy.delaying(_SECONDS, jitter=_SECONDS / 10):
            assert said(client, b"slow") == b"slow"
        assert time.monotonic() - began > _SECONDS
        assert proxy.felt["delayed"] == 2


@pytest.mark.parametrize(("ways", "arrives"), [((), False), ((Way.THERE,), False), ((Way.BACK,), True)])
def test_it_holds(proxy: Proxy, heard: list[bytes], ways: tuple[Way, ...], *, arrives: bool) -> None:
    """A black hole says nothing; in one direction only, the server hears and the client does not."""
    with connected(proxy) as client:
        assert said(client, b"before") == b"before"
        with proxy.holding(*ways):
            client.settimeout(_SECONDS)
            with pytest.raises(TimeoutError):
                said(client, b"held")
            assert (b"held" in heard) is arrives
        client.settimeout(5)
        assert client.recv(10) == b"held"
        assert proxy.felt["held"] == 1


def test_it_holds_who_comes_anew(proxy: Proxy) -> None:
    """A new connection is taken and hears nothing."""
    with proxy.holding(), connected(proxy) as client:
        client.settimeout(_SECONDS)
        with pytest.raises(TimeoutError):
            said(client, b"held")


def test_it_cuts(proxy: Proxy) -> None:
    """A reset, not an end: for those connected, and for those who come while it cuts."""
    with connected(proxy) as client:
        assert said(client, b"before") == b"before"
        with proxy.cutting():
            with pytest.raises(ConnectionResetError):
                client.recv(10)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                said_anew(proxy, b"cut")
    assert said_anew(proxy, b"after") == b"after"


def test_it_refuses(proxy: Proxy) -> None:
    """Nobody listens, and who was connected is reset."""
    with connected(proxy) as client:
        assert said(client, b"before") == b"before"
        with proxy.refusing():
            with pytest.raises(ConnectionResetError):
                client.recv(10)
            with pytest.raises(ConnectionRefusedError):
                connected(proxy)
    assert said_anew(proxy, b"after") == b"after"


def test_it_loses_the_answer_to_one_statement(proxy: Proxy, heard: list[bytes]) -> None:
    """The server has heard the statement and answered; the client is reset. Once, and on the connection meant alone."""
    with connected(proxy) as client, connected(proxy) as another:
        proxy.cut_answer(to=b"COMMIT", after=b"COPY")
        assert said(client, b"COPY") == b"COPY"
        assert said(another, b"COMMIT") == b"COMMIT"
        with pytest.raises(ConnectionResetError):
            said(client, b"COMMIT")
        eventually(lambda: heard.count(b"COMMIT") == 2)
        assert proxy.felt["answers cut"] == 1
    with connected(proxy) as later:
        assert said(later, b"COPY") == b"COPY"
        assert said(later, b"COMMIT") == b"COMMIT"


def connected(proxy: Proxy) -> socket.socket:
    """A client of the proxy."""
    return socket.create_connection((LOOPBACK, proxy.port), timeout=5)


def said(client: socket.socket, words: bytes) -> bytes:
    """The answer."""
    client.sendall(words)
    return client.recv(100)


def said_anew(proxy: Proxy, words: bytes) -> bytes:
    """The answer to a new client."""
    with connected(proxy) as client:
        return said(client, words)


def _echo(listener: socket.socket, heard: list[bytes]) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo_one, args=(client, heard), daemon=True).start()


def _echo_one(client: socket.socket, heard: list[bytes]) -> None:
    with client:
        try:
            while words := client.recv(100):
                heard.append(words)
                client.sendall(words)
        except OSError:
            return
