"""Parses settings that hold several values, and recognises the addresses of loopback."""

import ipaddress

from pydantic import SecretStr

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
MIN_SECRET_BYTES = 16


def split_list(text: str) -> tuple[str, ...]:
    """Return the values, which are separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def split_keys(keys: SecretStr) -> tuple[bytes, ...]:
    """Return the keys, which are separated by commas; raise ValueError if one is too short."""
    found = tuple(key.strip().encode() for key in keys.get_secret_value().split(","))
    if any(len(key) < MIN_SECRET_BYTES for key in found):
        raise ValueError(f"each key must have at least {MIN_SECRET_BYTES} bytes")
    return found


def parse_networks(text: str) -> tuple[IPNetwork, ...]:
    """Return the networks, which are separated by commas; raise ValueError."""
    try:
        return tuple(map(ipaddress.ip_network, split_list(text)))
    except ValueError as error:
        raise ValueError(f"must be networks such as 10.0.0.0/8, separated by commas: {error}") from None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address to which a server binds."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
