"""The client of a request behind proxies: the last address that is no trusted proxy."""

from ipaddress import ip_network

import pytest

from service.server.client_address import ClientAddresses

_PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def _client(peer: str, *values: str, header: str = "x-forwarded-for") -> str:
    headers = [(header.encode(), value.encode()) for value in values]
    return ClientAddresses(header, _PROXIES).find((peer, 1), [(b"host", b"here"), *headers])


@pytest.mark.parametrize(
    ("peer", "values", "client"),
    [
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),  # the peer is no proxy: its header is worth nothing
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["198.51.100.1, 192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["10.9.9.9, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.1", "192.0.2.2, 10.0.0.2"], "192.0.2.2"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["192.0.2.1, 10.0.0.2,"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1:4711"], "192.0.2.1"),
        ("10.0.0.1", ["256.0.0.1"], "10.0.0.1"),
        ("10.0.0.1", ["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["[2001:db8:1:2::9]:80"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["::ffff:192.0.2.1"], "192.0.2.1"),
        ("::ffff:10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("fd00::1", ["192.0.2.1"], "192.0.2.1"),
        ("2001:db8::1", ["192.0.2.1"], "2001:db8::/64"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxy(peer: str, values: list[str], client: str) -> None:
    """What stands before it was sent by the client itself, and is not believed."""
    assert _client(peer, *values) == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=192.0.2.1", "192.0.2.1"),
        ('For="192.0.2.1:80";proto=https', "192.0.2.1"),
        ('proto=https; for="[2001:db8:1:2::9]:80"', "2001:db8:1:2::/64"),
        ("for=198.51.100.1, for=192.0.2.1;by=10.0.0.1", "192.0.2.1"),
        ("for=192.0.2.1, for=_hidden", "10.0.0.1"),
        ("for=192.0.2.1, by=10.0.0.1", "10.0.0.1"),
        ("notfor=192.0.2.1", "10.0.0.1"),
    ],
)
def test_forwarded_is_read_as_rfc_7239_defines_it(value: str, client: str) -> None:
    """A proxy that hides its peer, or names none, counts as the client."""
    assert _client("10.0.0.1", value, header="forwarded") == client


def test_only_the_header_that_the_proxies_set_is_read() -> None:
    """A client can send the other one through a proxy that does not know it."""
    found = ClientAddresses("x-forwarded-for", _PROXIES).find(("10.0.0.1", 1), [(b"forwarded", b"for=192.0.2.1")])

    assert found == "10.0.0.1"


def test_a_peer_without_an_address_has_no_limit() -> None:
    """A Unix socket has no address."""
    assert not ClientAddresses("forwarded", _PROXIES).find(None, [])
