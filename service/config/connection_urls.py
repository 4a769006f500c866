"""Checks connection URLs with the parsers of the libraries that use them, before any connection is made.

A process with a faulty URL would wait at its start for a server that never answers. No message repeats a user name or a
password, nor what a parser takes for the host because a character of the password is not percent-encoded.
"""

import re
from urllib.parse import SplitResult, parse_qs, parse_qsl, urlencode, urlsplit

import httpx
from psycopg import ProgrammingError, pq
from psycopg.conninfo import make_conninfo
from redis import ConnectionPool
from redis.exceptions import RedisError
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from service.config import database_url, redis_url
from service.config.parsing import ENCODING_HINT

#: a host for libpq that has no server: it checks every option first, and then fails at once
_NO_HOST = "/dev/null"
#: arguments that are no options: what _split checks, and addresses that libpq would connect to
_ADDRESS = ("user", "password", "host", "hostaddr", "port", "dbname")
#: of ssl_cert_reqs, as both Redis's client and kombu call them; kombu also has names such as CERT_REQUIRED
_CERTIFICATE_CHECKS = {"required", "optional", "none"}
_REDIS_DATABASE = re.compile(r"/?[0-9]*")


def check_postgresql_url(url: str) -> str:
    """Return the URL; raise ValueError if it is malformed, or if libpq refuses an option or its value.

    An option that would undo what the service relies on is refused, too.
    """
    address, _ = database_url.split_hosts(url)
    _split(address, ("postgresql", "postgresql+psycopg"))
    try:
        parsed = make_url(address)
        _, arguments = parsed.get_dialect()().create_connect_args(parsed)
    except (ArgumentError, ValueError):
        raise ValueError(f"is not a URL with hosts and ports; {ENCODING_HINT}") from None
    database_url.session_settings(parsed)
    if repeated := [
        name for name, value in parsed.query.items() if name not in _ADDRESS and not isinstance(value, str)
    ]:
        raise ValueError(f"has the option {', '.join(repeated)} twice")
    options = {name: str(value) for name, value in arguments.items() if name not in _ADDRESS}
    if unknown := [name for name in options if not _is_libpq_option(name)]:
        raise ValueError(f"PostgreSQL's client does not know the option {', '.join(unknown)}")
    connection = pq.PGconn.connect_start(make_conninfo(host=_NO_HOST, **options).encode())
    reason = connection.get_error_message()
    connection.finish()
    if _NO_HOST not in reason:
        raise ValueError(reason)
    if not re.fullmatch("[1-9][0-9]{0,3}", options.get("connect_timeout", "1")):
        raise ValueError("connect_timeout must be a number of seconds above 0: without it a process may wait for ever")
    return url


def check_redis_url(url: str) -> str:
    """Return the URL; raise ValueError if it is malformed, or if redis-py refuses an option or its value.

    redis-py would silently use database 0 in place of one that is not a number.
    """
    parts = _split(redis_url.parse(url).server, ("redis", "rediss"))
    if not _REDIS_DATABASE.fullmatch(parts.path):
        raise ValueError("the database must be a number, as in redis://host:port/0")
    if parts.scheme == "rediss" and not set(parse_qs(parts.query).get("ssl_cert_reqs", ())) <= _CERTIFICATE_CHECKS:
        raise ValueError(f"ssl_cert_reqs must be one of {', '.join(sorted(_CERTIFICATE_CHECKS))}, in lower case")
    if refused := [name for name, value in parse_qsl(parts.query) if not _is_redis_option(parts.scheme, name, value)]:
        raise ValueError(f"Redis's client does not know the option, or refuses its value: {', '.join(refused)}")
    return url


def check_http_url(url: str) -> SplitResult:
    """Return the parts of the URL; raise ValueError if it is malformed, or if httpx cannot send a request to it."""
    parts = _split(url, ("https", "http"))
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
    if parts.scheme not in schemes:
        raise ValueError(f"must begin with {schemes[0]}://")
    if url.count("@") > 1 or url.count("@") != parts.netloc.count("@"):
        raise ValueError(ENCODING_HINT)
    return parts


def _is_libpq_option(name: str) -> bool:
    try:
        make_conninfo(**{name: ""})
    except ProgrammingError:
        return False
    return True


def _is_redis_option(scheme: str, name: str, value: str) -> bool:
    """Return whether a connection can have the option; it is made and never opened."""
    try:
        ConnectionPool.from_url(f"{scheme}://host/?{urlencode({name: value})}").make_connection()
    except (TypeError, ValueError, RedisError):
        return False
    return True
