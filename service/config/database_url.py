"""What a PostgreSQL URL says: hosts, also in libpq's own form, options of libpq, and settings of the sessions."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from sqlalchemy import URL, make_url

from service.config.parsing import URL_HOSTS, parse_hosts

#: what promises depend on, and a wrong time: `service/store/engine.py` sets them for every session
OWN_SESSION_SETTINGS = frozenset(
    {"lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "synchronous_commit", "timezone"}
)
#: as PostgreSQL splits `options`: at spaces, where a backslash makes the next character part of the word
_WORD = re.compile(r"(?:\\.|[^\s\\])+")
_SETTING_NAME = re.compile(r"[a-z_][a-z0-9_$.]*")


class DatabaseUrl(NamedTuple):
    """A PostgreSQL URL in its parts."""

    #: without the hosts and the session settings below
    url: URL
    #: `host` and `port` of libpq, if only libpq's form of a URL can have them: several hosts, a path of a socket
    hosts: Mapping[str, str]
    #: names and values of `options`
    session_settings: Mapping[str, str]

    def option(self, name: str) -> str | None:
        """Return the value of an option of libpq."""
        value = self.url.query.get(name)
        return None if value is None else str(value)


def parse(url: str) -> DatabaseUrl:
    """Return the parts of a URL that connection_urls.check_postgresql_url has accepted."""
    address, hosts = split_hosts(url)
    parsed = make_url(address)
    return DatabaseUrl(parsed.difference_update_query(["options"]), hosts, session_settings(parsed))


def split_hosts(url: str) -> tuple[str, Mapping[str, str]]:
    """Return the URL that SQLAlchemy can read, and `host` and `port` for libpq if it cannot read these.

    Raises ValueError if they are malformed.
    """
    parts = URL_HOSTS.fullmatch(url)
    if not parts or not set(parts["hosts"]) & set(",%"):
        return url, {}
    hosts = parse_hosts(parts["hosts"])
    names = ",".join(unquote(host) for host, _ in hosts)
    return parts["before"] + parts["after"], {"host": names, "port": ",".join(port for _, port in hosts)}


def session_settings(url: URL) -> Mapping[str, str]:
    """Return the settings in the URL's `options`; raise ValueError for what is no setting or must not be set."""
    words = [re.sub(r"\\(.)", r"\1", word) for word in _WORD.findall(str(url.query.get("options", "")))]
    found = dict(map(_setting, _assignments(words)))
    if own := sorted(OWN_SESSION_SETTINGS & found.keys()):
        raise ValueError(f"sets {', '.join(own)} in `options`, which this service sets itself: leave it out")
    return found


def _assignments(words: Sequence[str]) -> list[str]:
    """Return `name=value` of each `-c name=value`, `-cname=value` and `--name=value`."""
    found, rest = [], iter(words)
    for word in rest:
        if not word.startswith(("-c", "--")):
            raise ValueError("has something in `options` that is not -c name=value")
        found.append(next(rest, "") if word == "-c" else word[2:])
    return found


def _setting(assignment: str) -> tuple[str, str]:
    name, equals, value = assignment.partition("=")
    name = name.replace("-", "_").lower()
    if not equals or not _SETTING_NAME.fullmatch(name):
        raise ValueError("has something in `options` that is not -c name=value")
    return name, value
