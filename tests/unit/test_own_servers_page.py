"""The tables of docs/own-servers.md are the files that a secured stack is configured with."""

from stack.secured import KAFKA_ACLS, PRINCIPALS, REDIS_ACLS, Acl, read_kafka_acls
from tests.fixtures.redis_rights import read_rules
from tests.own_servers_page import table


def test_the_table_of_rights_at_kafka_is_the_file() -> None:
    rows = table("| user | kind | name | operations |")

    assert [Acl(user, kind, name, tuple(granted.split())) for user, kind, name, granted in rows] == read_kafka_acls(
        KAFKA_ACLS[0]
    )


def test_every_user_has_a_password_in_the_stack() -> None:
    """And no line of a file is of a user that nobody is."""
    kafka = {acl.principal for path in KAFKA_ACLS for acl in read_kafka_acls(path)}
    redis = {user for path in REDIS_ACLS.values() for user in read_rules(path.read_text())}

    assert kafka | redis == set(PRINCIPALS)
