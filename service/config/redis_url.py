"""What a Redis URL says: one server, or the Sentinels that name the server which is the primary."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from redis.connection import parse_url

from service.config.parsing import ENCODING_HINT, URL_HOSTS, parse_hosts, parse_query

#: schemes with Sentinel, and the scheme of the servers
_SENTINEL_SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
#: how a URL of Redis may begin
SCHEMES = tuple(f"{scheme}://" for scheme in (*_SENTINEL_SCHEMES.values(), *_SENTINEL_SCHEMES))
_SENTINEL_FORM = "redis+sentinel://user:password@one:26379,two:26379/0?master_name=NAME"
_REDIS_PORT, _SENTINEL_PORT = 6379, 26379
#: options of the URL that are for Sentinel, with what redis-py calls them
_LOGIN = {"sentinel_username": "username", "sentinel_password": "password"}
SENTINEL_OPTIONS = ("master_name", *_LOGIN)


class RedisUrl(NamedTuple):
    """A Redis URL in its parts."""

    #: the URL of the server, redis:// or rediss://; with Sentinel its address is that of the first Sentinel
    server: str
    #: host and port of each Sentinel; none: the address of the server always leads to the primary
    sentinels: tuple[tuple[str, int], ...] = ()
    #: the name under which the Sentinels watch the primary
    master_name: str = ""
    #: user and password at the Sentinels, under redis-py's names; they are not those of the primary
    sentinel_login: Mapping[str, str] = MappingProxyType({})

    def shares_database(self, other: "RedisUrl") -> bool:
        """Return whether both URLs name the same database of the same server, as far as their addresses show it."""
        ours, theirs = (_database(url) for url in (self, other))
        return bool(ours.addresses & theirs.addresses) and ours[1:] == theirs[1:]


class _Database(NamedTuple):
    addresses: set[tuple[str, int]]
    master_name: str
    number: int


def _database(url: RedisUrl) -> _Database:
    options: dict[str, Any] = parse_url(url.server)  # type: ignore[no-untyped-call]
    server = options.get("host", "localhost"), options.get("port", _REDIS_PORT)
    return _Database(set(url.sentinels) or {server}, url.master_name, options.get("db", 0))


def parse(url: str) -> RedisUrl:
    """Return the parts of a URL; raise ValueError if those that are for Sentinel are malformed.

    Login, database and options of the primary are not checked: connection_urls.check_redis_url does that.
    """
    scheme, _, _ = url.partition("://")
    if scheme not in _SENTINEL_SCHEMES:
        if "sentinel" in scheme.lower():
            raise ValueError(f"must have the form {_SENTINEL_FORM}, with rediss+sentinel:// for TLS, in lower case")
        return RedisUrl(url)
    parts = URL_HOSTS.fullmatch(url)
    if parts is None or "@" in parts["after"]:
        raise ValueError(f"must have the form {_SENTINEL_FORM}; {ENCODING_HINT}")
    sentinels = tuple((host, int(port or _SENTINEL_PORT)) for host, port in parse_hosts(parts["hosts"]))
    if not all(host for host, _ in sentinels):
        raise ValueError("has a Sentinel without a host")
    path, _, _ = parts["after"].partition("?")
    options = parse_query(url)
    own = {name: value for name, value in options if name in SENTINEL_OPTIONS}
    if "master_name" not in own:
        raise ValueError("needs master_name, the name under which Sentinel watches the primary: ?master_name=NAME")
    if "sentinel_username" in own and "sentinel_password" not in own:
        raise ValueError("has sentinel_username without sentinel_password")
    user_info = parts["before"].removeprefix(f"{scheme}://")
    rest = urlencode([(name, value) for name, value in options if name not in SENTINEL_OPTIONS], quote_via=quote)
    return RedisUrl(
        f"{_SENTINEL_SCHEMES[scheme]}://{user_info}{_netloc(*sentinels[0])}{path}{rest and f'?{rest}'}",
        sentinels,
        own["master_name"],
        {theirs: own[name] for name, theirs in _LOGIN.items() if name in own},
    )


def _netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
