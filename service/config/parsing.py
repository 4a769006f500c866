"""Parses settings that hold several values, and recognises the addresses of loopback."""

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import parse_qsl

from pydantic import SecretStr

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
MIN_SECRET_BYTES = 16
#: the path below which a reverse proxy serves the API
ROOT_PATH_PATTERN = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", re.ASCII)
#: what a browser sends as Origin: a scheme, a host in lower case, and a port if it is not that of the scheme
_ORIGIN = re.compile(r"(https?)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?", re.ASCII)
_DEFAULT_PORTS = {"http": "80", "https": "443"}
#: a URL with one or several hosts, in its parts
URL_HOSTS = re.compile(r"(?P<before>[^:/?#]+://(?:[^@/?#]*@)?)(?P<hosts>[^@/?#]*)(?P<after>(?:[/?#].*)?)")
_HOST = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?", re.ASCII)
_MAX_PORT = 65_535
#: what to do about a URL that cannot be read: often a password has such a character
ENCODING_HINT = "the characters @ : / ? # [ ] % & + of a user name or password must be percent-encoded"
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def is_service_address(text: str) -> bool:
    """Return whether Kubernetes has set a variable, and not a person: the address of a service, tcp://10.0.0.1:8000.

    For a service `api` it sets API_PORT in every pod of the namespace, unless `enableServiceLinks` is false.
    """
    return _SERVICE_ADDRESS.match(text) is not None


def shown_path(text: str) -> str:
    """Return a path as a message shows it. What is no absolute path may be the secret itself, and is not repeated."""
    return text if re.fullmatch(r"/[^\n]{1,300}", text) and "://" not in text else "(a value that is no absolute path)"


def split_list(text: str) -> tuple[str, ...]:
    """Return the values, which are separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def split_keys(keys: SecretStr) -> tuple[bytes, ...]:
    """Return the keys, which are separated by commas; raise ValueError if one is too short."""
    found = tuple(key.strip().encode() for key in keys.get_secret_value().split(","))
    if any(len(key) < MIN_SECRET_BYTES for key in found):
        raise ValueError(f"each key must have at least {MIN_SECRET_BYTES} bytes")
    return found


def parse_hosts(text: str) -> list[tuple[str, str]]:
    """Return host and port of each address of a URL, which are separated by commas; raise ValueError.

    A port that is not given is empty. An IPv6 address is returned without its brackets.
    """
    hosts = [_HOST.fullmatch(host) for host in text.split(",")]
    if not all(host and int(host["port"] or 0) <= _MAX_PORT for host in hosts):
        raise ValueError(f"has a host or a port that is malformed; {ENCODING_HINT}")
    return [(host["host"].strip("[]"), host["port"] or "") for host in hosts if host]


def parse_query(url: str, repeatable: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return the options of a URL; raise ValueError for what a client would change or leave out without an error.

    Only the options of `repeatable` may be given more than once. No message repeats a name: it may be the end of a
    password that is not percent-encoded.
    """
    _, _, query = url.partition("?")
    if "+" in query or "#" in url:
        raise ValueError(f"has a + or a # in its options: write %2B or %23, and %20 for a space; {ENCODING_HINT}")
    try:
        options = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        options = [("", "")]
    if not all(value for _, value in options):
        raise ValueError(f"has an option without a value; {ENCODING_HINT}")
    names = [name for name, _ in options if name not in repeatable]
    if len(set(names)) < len(names):
        raise ValueError("has an option more than once")
    return options


def parse_networks(text: str) -> tuple[IPNetwork, ...]:
    """Return the networks, which are separated by commas; raise ValueError."""
    try:
        return tuple(map(ipaddress.ip_network, split_list(text)))
    except ValueError as error:
        raise ValueError(f"must be networks such as 10.0.0.0/8, separated by commas: {error}") from None


def parse_origins(text: str) -> tuple[str, ...]:
    """Return the origins of web pages, which are separated by commas; raise ValueError with the fault of each."""
    origins = split_list(text)
    if faults := [fault for origin in origins if (fault := _origin_fault(origin))]:
        raise ValueError("; ".join(faults))
    return origins


def _origin_fault(origin: str) -> str | None:
    """Return why no browser names a page's site so, or None."""
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return f"{origin} is not an origin such as https://shop.example, in lower case, without a path and without *"
    scheme, _, port = match.groups()
    if port == _DEFAULT_PORTS[scheme]:
        return f"{origin} has the port of {scheme}, which browsers leave out"
    return None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address to which a server binds."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
