"""A PostgreSQL URL in its parts: hosts in both forms, and the settings of `options`."""

import pytest

from service.config import database_url
from service.store import engine


@pytest.mark.parametrize(
    ("url", "hosts", "rest"),
    [
        ("postgresql://u:p@host:5432/db", {}, "postgresql://u:p@host:5432/db"),
        ("postgresql:///db?host=/run", {}, "postgresql:///db?host=/run"),
        (
            "postgresql://u:p@one:5432,two/db?sslmode=require",
            {"host": "one,two", "port": "5432,"},
            "postgresql://u:p@/db?sslmode=require",
        ),
        ("postgresql://one,[::1]:5433", {"host": "one,::1", "port": ",5433"}, "postgresql://"),
        ("postgresql+psycopg://u@%2Frun%2Fpg/db", {"host": "/run/pg", "port": ""}, "postgresql+psycopg://u@/db"),
    ],
)
def test_hosts_that_only_libpq_reads_are_given_to_it(url: str, hosts: dict[str, str], rest: str) -> None:
    """PostgreSQL's documentation and hosting services show these forms."""
    assert database_url.split_hosts(url) == (rest, hosts)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("", {}),
        ("-csearch_path%3Dshop", {"search_path": "shop"}),
        ("-c%20search_path%3Da,%5C%20b%20%20--work-mem%3D8MB", {"search_path": "a, b", "work_mem": "8MB"}),
        ("-c%20Application.Name%3Da%5C%5Cb%3Dc", {"application.name": "a\\b=c"}),
        ("-c%20jit%3Don%20-cjit%3Doff", {"jit": "off"}),
        ("-c%20search_path%3D", {"search_path": ""}),
    ],
)
def test_settings_are_split_as_postgresql_splits_them(options: str, settings: dict[str, str]) -> None:
    """A backslash keeps a space; the last one of a name counts; in a name a dash is an underscore."""
    parsed = database_url.parse(f"postgresql://u@host/db?options={options}&sslmode=disable")

    assert parsed.session_settings == settings
    assert dict(parsed.url.query) == {"sslmode": "disable"}


def test_nobody_else_sets_what_promises_depend_on() -> None:
    assert engine._REQUIRED.keys() == database_url.OWN_SESSION_SETTINGS
