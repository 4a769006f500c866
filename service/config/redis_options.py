"""The options that a Redis URL may have: a closed list, because redis-py takes any argument of its connections.

Others would change what the service relies on: the form of replies (`decode_responses`), or that nothing is retried.
"""

import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from redis.connection import parse_url

from service.config.tls_files import check_ca, check_certificate, require_readable


class _Values(NamedTuple):
    """The values of an option, of which redis-py reads none as something else."""

    pattern: str
    description: str


_BOOLEAN = _Values("(?i:true|false|yes|no|1|0)", "true or false")
_SECONDS = _Values(r"(?=.*[1-9])[0-9]{1,4}(?:\.[0-9]{1,3})?", "a number of seconds above 0")
_FLAGS = _Values("VERIFY_[A-Z0-9_]+(?:,VERIFY_[A-Z0-9_]+)*", "names of flags such as VERIFY_X509_STRICT")
_TEXT = _Values(".+", "one line")
TLS_OPTIONS: Mapping[str, _Values] = MappingProxyType(
    {
        "ssl_ca_certs": _TEXT,
        "ssl_cert_reqs": _Values("none|optional|required", "one of none, optional, required, in lower case"),
        "ssl_certfile": _TEXT,
        "ssl_check_hostname": _BOOLEAN,
        "ssl_ciphers": _TEXT,
        "ssl_exclude_verify_flags": _FLAGS,
        "ssl_include_verify_flags": _FLAGS,
        "ssl_keyfile": _TEXT,
        "ssl_min_version": _Values("771|772", "771 (TLS 1.2) or 772 (TLS 1.3)"),
        "ssl_password": _TEXT,
    }
)
#: those of the gate's clients; Celery's are settings of celeryconfig.py
CLIENT_OPTIONS: Mapping[str, _Values] = MappingProxyType(
    {
        "client_name": _Values("[!-~]+", "printable ASCII without spaces"),
        "health_check_interval": _Values("[0-9]{1,5}", "a number of seconds"),
        "max_connections": _Values("[1-9][0-9]{0,5}", "a number above 0"),
        "socket_connect_timeout": _SECONDS,
        "socket_keepalive": _BOOLEAN,
        "socket_timeout": _SECONDS,
    }
)


def check_values(options: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError if a client cannot use the value of an option; each is one of those above."""
    known = {**CLIENT_OPTIONS, **TLS_OPTIONS}
    if refused := [name for name, value in options if not re.fullmatch(known[name].pattern, value)]:
        raise ValueError("; ".join(f"{name} must be {known[name].description}" for name in refused))


def tls_options(server: str) -> dict[str, Any]:
    """Return the options of TLS in the URL of a server, with the values that redis-py reads, for every client."""
    found: dict[str, Any] = parse_url(server)  # type: ignore[no-untyped-call]
    return {name: value for name, value in found.items() if name in TLS_OPTIONS}


def check_tls(server: str) -> None:
    """Raise ValueError if the URL of a server names a file or ciphers that no connection could use."""
    options = tls_options(server)
    checks: dict[str, Callable[[str], None]] = {
        "ssl_ca_certs": check_ca,
        "ssl_keyfile": require_readable,
        "ssl_certfile": lambda path: check_certificate(path, options.get("ssl_keyfile"), options.get("ssl_password")),
    }
    for name, check in checks.items():
        try:
            if name in options:
                check(options[name])
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("ssl_keyfile needs ssl_certfile, the certificate of the key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(options.get("ssl_ciphers", "DEFAULT"))
    except ssl.SSLError:
        raise ValueError("ssl_ciphers names no cipher that OpenSSL has") from None
