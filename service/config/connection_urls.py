"""Checks connection URLs with the parsers of the libraries that use them, before any connection is made.

A process with a faulty URL would wait at its start for a server that never answers. No message repeats a user name or a
password, nor what a parser takes for the host because a character of the password is not percent-encoded.
"""

import re
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

import httpx
from psycopg import pq
from psycopg.conninfo import make_conninfo
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from service.config import database_url, redis_options, redis_url
from service.config.parsing import ENCODING_HINT, parse_query

#: a host for libpq that has no server: it checks every option first, and then fails at once
_NO_HOST = "/dev/null"
#: arguments that are no options: what _split checks, and addresses that libpq would connect to
_HOSTS = ("host", "hostaddr", "port")
_ADDRESS = (*_HOSTS, "user", "password", "dbname")
_REDIS_DATABASE = re.compile(r"/?[0-9]*")


def check_postgresql_url(url: str) -> str:
    """Return the URL; raise ValueError if it is malformed, or if libpq refuses an option or its value.

    An option that would undo what the service relies on is refused, too.
    """
    address, _ = database_url.split_hosts(url)
    _split(address, ("postgresql://", "postgresql+psycopg://"))
    _require_supported(parse_query(url, _HOSTS), [option.keyword.decode() for option in pq.Conninfo.get_defaults()])
    try:
        parsed = make_url(address)
        _, arguments = parsed.get_dialect()().create_connect_args(parsed)
    except (ArgumentError, ValueError):
        raise ValueError(f"is not a URL with hosts and ports; {ENCODING_HINT}") from None
    database_url.session_settings(parsed)
    options = {name: str(value) for name, value in arguments.items() if name not in _ADDRESS}
    connection = pq.PGconn.connect_start(make_conninfo(host=_NO_HOST, **options).encode())
    reason = connection.get_error_message()
    connection.finish()
    if _NO_HOST not in reason:
        raise ValueError(reason)
    if not re.fullmatch("[1-9][0-9]{0,3}", options.get("connect_timeout", "1")):
        raise ValueError("connect_timeout must be a number of seconds above 0: without it a process may wait for ever")
    return url


def check_redis_url(url: str) -> str:
    """Return the URL of the gate's Redis; raise ValueError if it is malformed, or has an option that is not supported.

    redis-py would silently use database 0 in place of one that is not a number.
    """
    return _check_redis_url(url, redis_options.CLIENT_OPTIONS)


def check_redis_broker_url(url: str) -> str:
    """Do the same for the URL of Celery's broker. Its options are those of TLS: kombu has others only as settings."""
    return _check_redis_url(url, {})


def _check_redis_url(url: str, client_options: Collection[str]) -> str:
    address = redis_url.parse(url)
    parts = _split(address.server, redis_url.SCHEMES)
    if not _REDIS_DATABASE.fullmatch(parts.path):
        raise ValueError("the database must be a number, as in redis://host:port/0")
    options = parse_query(address.server)
    tls = redis_options.TLS_OPTIONS if parts.scheme == "rediss" else ()
    _require_supported(options, [*client_options, *tls, *(redis_url.SENTINEL_OPTIONS if address.sentinels else ())])
    redis_options.check_values(options)
    redis_options.check_tls(address.server)
    return url


def check_http_url(url: str) -> SplitResult:
    """Return the parts of the URL; raise ValueError if it is malformed, or if httpx cannot send a request to it."""
    parts = _split(url, ("https://", "http://"))
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL:
        host = ""
    if not host:
        raise ValueError(f"is not a URL with one host and one port; {ENCODING_HINT}")
    return parts


def _split(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """Return the parts of the URL; raise ValueError if it is malformed.

    A user name or password that is not percent-encoded is refused where parsers could differ about the host.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is not a number, or above 65535
    except ValueError:
        raise ValueError(f"is not a URL with one host and one port; {ENCODING_HINT}") from None
    if not url.startswith(schemes):  # some clients know a scheme in lower case only
        raise ValueError(f"must begin with {' or '.join(schemes)}, in lower case")
    if url.count("@") > 1 or url.count("@") != parts.netloc.count("@"):
        raise ValueError(ENCODING_HINT)
    return parts


def _require_supported(options: Collection[tuple[str, str]], supported: Collection[str]) -> None:
    """Raise ValueError if there are others; their names may be parts of a password, and are not repeated."""
    if others := [name for name, _ in options if name not in supported]:
        raise ValueError(
            f"has options that are not supported ({len(others)}); supported are:"
            f" {', '.join(sorted(supported)) or 'none'}; {ENCODING_HINT}"
        )
