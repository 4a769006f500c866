"""`coupons migrate` and `coupons token`, as an operator runs them."""

import json

import jwt

from stack.local import LocalStack
from tests.fixtures.commands import Run

_JWT_SETTINGS = {
    "JWT_ISSUER": "tests",
    "JWT_AUDIENCE": "coupons",
    "JWT_ALGORITHMS": "HS256",
    "JWT_SECRET": "s" * 32,
    "TICKET_KEYS": "t" * 16,
}


def test_a_migration_prints_the_revision_and_the_topics_that_it_created(run: Run, parts: LocalStack) -> None:
    """The first one created both topics; another finds them."""
    first = (parts.directory / "log" / "migrate.log").read_text()
    owner = {"MIGRATE_DATABASE_URL": parts.environment["MIGRATE_DATABASE_URL"]}
    printed = json.loads(run("migrate", "--json", **owner).stdout)
    line = run("migrate", **owner).stdout

    assert printed == {"revision": "0002_counting_rights", "created_topics": []}
    assert line == "schema: revision 0002_counting_rights; topics created: none\n"
    assert line.replace("none", "ISSUE_COUPON, ISSUE_COUPON.dlt") in first


def test_a_token_is_printed_as_text_or_json(run: Run) -> None:
    text = run("token", 42, **_JWT_SETTINGS).stdout.strip()
    printed = json.loads(run("token", 42, "--minutes", 5, "--json", **_JWT_SETTINGS).stdout)

    users = [
        jwt.decode(token, "s" * 32, algorithms=["HS256"], audience="coupons")["sub"]
        for token in (text, printed.pop("token"))
    ]
    assert users == ["42", "42"]
    assert printed == {"user_id": 42, "valid_seconds": 300}
