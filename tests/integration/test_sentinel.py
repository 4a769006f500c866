"""Clients of the gate and of Celery's broker that get the address of the primary from Sentinel."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, NamedTuple

import pytest
from kombu.connection import Connection

from service.domain.errors import NotPermitted, Unavailable
from service.gate.async_gate import AsyncGate
from service.gate.client import build_async_client, build_client
from service.gate.gate_admin import GateAdmin
from service.gate.server_check import RedisServerCheck
from stack import ports
from stack.certificates import Authority
from stack.local import LocalStack
from stack.server_env import LOOPBACK
from stack.servers import tls_proxy
from stack.settings import ISOLATED
from tests.fixtures.parts import REQUEST_ID_KEYS
from tests.fixtures.sentinel import ENCODED_PASSWORD, MASTER_NAME, USER, SentinelServers, sentinel_servers
from tests.own_servers_page import example, run
from tests.waiting import eventually
from workers.redis_broker import connection_settings
from workers.redis_transport import SentinelTransport

_NAME = "found"
_TLS_HANDSHAKE = b"\x16"


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelServers]:
    with sentinel_servers(tmp_path_factory.mktemp("sentinel")) as servers:
        yield servers


def _connections(servers: SentinelServers) -> int:
    with servers.client(servers.primary_port) as client:
        return sum(one["name"] == _NAME for one in client.client_list())


def _connections_to_sentinels(servers: SentinelServers) -> int:
    found = 0
    for port in servers.sentinels:
        with servers.client(port) as client:
            found += sum(one["user"] == "service" for one in client.client_list())
    return found


@contextmanager
def _too_few_replicas(servers: SentinelServers) -> Iterator[None]:
    with servers.client(servers.primary_port) as client:
        client.config_set("min-replicas-to-write", 2)
        try:
            yield
        finally:
            client.config_set("min-replicas-to-write", 0)


def test_a_blocking_client_follows_the_primary(sentinel: SentinelServers) -> None:
    """P6: before a failover, after it, and with connections that are idle; none of them stays open at the end."""
    client = build_client(sentinel.url(0, more=f"&client_name={_NAME}"))
    pool = client.connection_pool
    for connection in [pool.get_connection() for _ in range(3)]:
        pool.release(connection)
    assert _connections(sentinel) == 3

    sentinel.fail_over()

    eventually(lambda: RedisServerCheck(client).clock_ms())
    GateAdmin(client).mark_unknown(1)
    assert _connections(sentinel) >= 1
    assert _connections_to_sentinels(sentinel) >= 1
    client.close()
    eventually(lambda: _connections(sentinel) == _connections_to_sentinels(sentinel) == 0)


def test_an_async_client_follows_the_primary(sentinel: SentinelServers) -> None:
    """P6: the same for the API's client."""

    async def run() -> None:
        async with build_async_client(sentinel.url(0, more=f"&client_name={_NAME}")) as client:
            await AsyncGate(client).require_writable()
            await asyncio.to_thread(sentinel.fail_over)
            for _ in range(100):
                with suppress(Unavailable):
                    await AsyncGate(client).require_writable()
                    break
                await asyncio.sleep(0.05)
            else:
                pytest.fail("the client did not find the new primary")
            assert _connections(sentinel) == 1

    asyncio.run(run())
    eventually(lambda: _connections(sentinel) == _connections_to_sentinels(sentinel) == 0)


def test_a_refused_write_ends_every_connection(sentinel: SentinelServers) -> None:
    """P6: the rule about connections is that of an address without Sentinel: tests/integration/test_gate_client.py."""
    client = build_client(sentinel.url(0, more=f"&client_name={_NAME}"))
    pool = client.connection_pool
    for connection in [pool.get_connection() for _ in range(3)]:
        pool.release(connection)

    with _too_few_replicas(sentinel), pytest.raises(Unavailable, match="NOREPLICAS"):
        GateAdmin(client).mark_unknown(1)

    eventually(lambda: _connections(sentinel) == 0)
    GateAdmin(client).mark_unknown(1)
    client.close()


def test_every_sentinel_is_kept_however_many_connections_are_made_at_once(sentinel: SentinelServers) -> None:
    """redis-py moves the Sentinel that answered to the front; it would lose one if two did that at the same time."""

    async def run() -> list[int]:
        async with build_async_client(sentinel.url(0)) as client:
            await asyncio.gather(*(AsyncGate(client).require_writable() for _ in range(10)))
            asked = client.connection_pool.sentinel_manager.sentinels  # type: ignore[attr-defined]
            return [one.connection_pool.connection_kwargs["port"] for one in asked]

    with sentinel.without_first_sentinel():
        assert sorted(asyncio.run(run())) == sorted(sentinel.sentinels)


@pytest.mark.parametrize(
    ("theirs", "wrong", "error", "reason"),
    [
        ("master_name=coupons", "master_name=another", Unavailable, "Sentinel 127.0.0.1:.* no primary called another"),
        ("sentinel_username=service", "sentinel_username=me", Unavailable, "Sentinel 127.0.0.1:.*invalid username"),
        ("//admin:", "//nobody:", NotPermitted, "invalid username-password pair"),
    ],
    ids=["name", "login at Sentinel", "login at the primary"],
)
def test_a_failed_connection_says_why(
    theirs: str, wrong: str, error: type[Exception], reason: str, sentinel: SentinelServers
) -> None:
    url = sentinel.url(0)
    assert theirs in url
    with build_client(url.replace(theirs, wrong)) as client, pytest.raises(error, match=reason) as caught:
        RedisServerCheck(client).require_writable()

    assert "a-password-of" not in str(caught.value)


class _TlsOrPlain(ThreadingTCPServer):
    """One port with and without TLS: Sentinel, which has no TLS here, and clients use the same address."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, plain_port: int, tls_port: int) -> None:
        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                first = self.request.recv(1, socket.MSG_PEEK)
                with (
                    suppress(OSError),
                    socket.create_connection(
                        (LOOPBACK, tls_port if first == _TLS_HANDSHAKE else plain_port)
                    ) as upstream,
                ):
                    back = threading.Thread(target=_copy, args=(upstream, self.request), daemon=True)
                    back.start()
                    _copy(self.request, upstream)
                    back.join()

        super().__init__((LOOPBACK, port), Handler)


def _copy(source: socket.socket, destination: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65_536):
            destination.sendall(chunk)
        destination.shutdown(socket.SHUT_WR)


class _WithTls(NamedTuple):
    """A primary and its Sentinels with TLS, for the gate's user `operator`.

    Each kind has a certificate of an authority of its own.
    """

    url: str
    ca_of_primary: Path
    ca_of_sentinels: Path


@pytest.fixture(scope="module")
def with_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_WithTls]:
    directory = tmp_path_factory.mktemp("tls")
    of_primary, of_sentinels = (Authority.load_or_create(directory / name, name) for name in ("primary", "sentinels"))
    front_port, primary_port, sentinel_port = (ports.any_free() for _ in range(3))
    with LocalStack(directory / "servers", (), ISOLATED) as stack:
        servers = SentinelServers(stack, front_port)
        _add_proxy(stack, "primary-tls", primary_port, servers.primary_port, of_primary)
        with _TlsOrPlain(front_port, servers.primary_port, primary_port) as front:
            threading.Thread(target=front.serve_forever, daemon=True).start()
            servers.start_sentinels()
            _add_proxy(stack, "sentinel-tls", sentinel_port, next(iter(servers.sentinels)), of_sentinels)
            login, _, rest = servers.url(0, "rediss+sentinel", user="operator").partition("@")
            url = f"{login}@{LOOPBACK}:{sentinel_port}/{rest.partition('/')[2]}"
            yield _WithTls(url, of_primary.certificate_file, of_sentinels.certificate_file)
            front.shutdown()


def _add_proxy(stack: LocalStack, name: str, port: int, upstream_port: int, authority: Authority) -> None:
    certificate = authority.issue("server").both_file
    stack.add(tls_proxy.spec(name, port, upstream_port, certificate, authority.certificate_file))


def _use_blocking(url: str) -> None:
    with build_client(url) as client:
        RedisServerCheck(client).require_writable()


def _use_async(url: str) -> None:
    async def run() -> None:
        async with build_async_client(url) as client:
            await AsyncGate(client).require_writable()

    asyncio.run(run())


def _use_as_broker(url: str) -> None:
    broker = connection_settings(url)
    connection: Any = Connection(  # type: ignore[no-untyped-call]
        broker.url, ssl=broker.use_ssl, transport_options=broker.transport_options, transport=SentinelTransport
    )
    with connection:
        connection.default_channel.client.set("gate:write_check", 1)


@pytest.mark.parametrize("use", [_use_blocking, _use_async, _use_as_broker], ids=["blocking", "asyncio", "Celery"])
def test_primary_and_sentinels_have_tls(use: Callable[[str], None], with_tls: _WithTls, tmp_path: Path) -> None:
    """Nothing is sent to a server that cannot be verified."""
    both = tmp_path / "both.pem"
    both.write_text(with_tls.ca_of_primary.read_text() + with_tls.ca_of_sentinels.read_text())
    use(f"{with_tls.url}&ssl_ca_certs={both}")

    for known in (with_tls.ca_of_primary, with_tls.ca_of_sentinels):
        with pytest.raises(Exception, match="certificate verify failed"):
            use(f"{with_tls.url}&ssl_ca_certs={known}")


@contextmanager
def _frozen(servers: SentinelServers, ports_of_sentinels: Iterable[int]) -> Iterator[None]:
    names = [servers.sentinels[port] for port in ports_of_sentinels]
    for name in names:
        servers._servers.freeze(name)
    try:
        yield
    finally:
        for name in names:
            servers._servers.thaw(name)


@pytest.mark.parametrize("use", [_use_blocking, _use_async], ids=["blocking", "asyncio"])
@pytest.mark.parametrize("answering", [0, 1], ids=["all", "all but the last"])
def test_frozen_sentinels_cost_a_second_together(
    use: Callable[[str], None], answering: int, sentinel: SentinelServers
) -> None:
    """P6: a worker that notes a heartbeat, and a task with a time limit, wait for all of them."""
    expected = nullcontext() if answering else pytest.raises(Unavailable, match=r"(Sentinel 127.*){3}")
    began = time.monotonic()
    with _frozen(sentinel, list(sentinel.sentinels)[: len(sentinel.sentinels) - answering]), expected:
        use(sentinel.url(0))

    assert time.monotonic() - began < 2.5


def test_the_example(with_tls: _WithTls, parts: LocalStack, tmp_path: Path) -> None:
    """Gate and broker have the same servers here, and one Sentinel has TLS."""
    both = tmp_path / "both.pem"
    both.write_text(with_tls.ca_of_primary.read_text() + with_tls.ca_of_sentinels.read_text())
    login, _, rest = with_tls.url.partition("//")[2].partition("@")
    ended = run(
        example(containing="rediss+sentinel://"),
        {
            "operator:PASSWORD": login,
            "operator:BROKER_PASSWORD": login,
            "one.example.com:26379,two.example.com:26379": rest.partition("/")[0],
            "=coupons&": f"={USER}&",
            "=gate&": f"={MASTER_NAME}&",
            "=broker&": f"={MASTER_NAME}&",
            "SENTINEL_PASSWORD": ENCODED_PASSWORD,
            "/etc/ssl/redis-ca.pem": str(both),
        },
        parts.environment | {"REQUEST_ID_KEYS": REQUEST_ID_KEYS},
    )
    found = dict(line.split("\t")[:2] for line in ended.stdout.splitlines())
    assert {part: found[part] for part in ("settings", "redis", "celery broker")} == dict.fromkeys(
        ("settings", "redis", "celery broker"), "ok"
    ), ended.stdout
