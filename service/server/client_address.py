"""The address of the client behind trusted proxies."""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

IPNetworks = Sequence[IPv4Network | IPv6Network]

#: what one proxy says about its peer: address, address:port, [IPv6] or [IPv6]:port
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|([0-9.]+):\d+|([0-9A-Fa-f:.]+)", re.ASCII)
_FORWARDED_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*("[^"]*"|[^;]*)', re.ASCII | re.IGNORECASE)
#: a network of this length is commonly one IPv6 customer, who can change the rest of the address at will
_IPV6_PREFIX_LENGTH = 64


class ClientAddresses:
    """Finds the client of a request, for limits by address.

    A header names the client only if a trusted proxy has written that part of it: every proxy appends the address of
    its peer, and what a client sends itself comes before that. So the client is the last address that is no trusted
    proxy.
    """

    def __init__(self, header: str, proxies: IPNetworks) -> None:
        """`header` is that which the proxies set, in lower case: x-forwarded-for or forwarded."""
        self._header = header.encode()
        self._is_forwarded = header == "forwarded"
        self._proxies = proxies

    def find(self, peer: tuple[str, int] | None, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the client's address, of IPv6 its /64 network; empty for a peer without an address.

        A proxy that hides the address of its peer counts as the client.
        """
        if peer is None:
            return ""
        address = _canonical(peer[0])
        if not _is_in(address, self._proxies):
            return _key(address)
        text = b",".join(value for name, value in headers if name == self._header).decode("latin-1")
        for hop in reversed(text.split(",") if text else []):
            node = self._node(hop)
            if node is None:
                break
            address = node
            if not _is_in(address, self._proxies):
                break
        return _key(address)

    def _node(self, hop: str) -> str | None:
        """Return the address that one hop names, or None."""
        if self._is_forwarded:
            found = _FORWARDED_FOR.search(hop)
            hop = found[1].strip().strip('"') if found else ""
        match = _NODE.fullmatch(hop.strip())
        try:
            return _canonical(next(filter(None, match.groups()))) if match else None
        except ValueError:
            return None


def is_from(peer: tuple[str, int] | None, networks: IPNetworks) -> bool:
    """Return whether a connection comes from one of these networks; not if its peer has no address."""
    return peer is not None and _is_in(_canonical(peer[0]), networks)


def _is_in(address: str, networks: IPNetworks) -> bool:
    try:
        return any(ip_address(address) in network for network in networks)
    except ValueError:
        return False


def _canonical(text: str) -> str:
    """Return an address in its one spelling, IPv4 inside IPv6 as IPv4; raise ValueError."""
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _key(address: str) -> str:
    return str(ip_network((address, _IPV6_PREFIX_LENGTH), strict=False)) if ":" in address else address
