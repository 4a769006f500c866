"""The example of docs/own-servers.md for PostgreSQL works against a server that is configured like it."""

import os
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import make_url

from stack.certificates import Authority
from stack.local import LocalStack
from stack.server_env import ROOT
from tests.fixtures.pgbouncer import TRANSACTION_POOLING, passwords_of, pgbouncer
from tests.own_servers_page import example, run

#: what the example has shown to be right
_PARTS = ("settings", "postgresql", "schema", "rights")


def test_the_example_of_a_managed_postgresql_with_pgbouncer(
    parts: LocalStack, command_environment: Mapping[str, str], log_id: int, tmp_path: Path
) -> None:
    """With TLS and transaction pooling. Names, passwords and the certificate's path are those of this machine."""
    del log_id
    authority = Authority.load_or_create(tmp_path / "tls", "the authority")
    server = authority.issue("pgbouncer")
    tls = {
        **TRANSACTION_POOLING,
        "client_tls_sslmode": "require",
        "client_tls_key_file": str(server.key_file),
        "client_tls_cert_file": str(server.certificate_file),
    }
    port = make_url(parts.database_url).port or 0
    with pgbouncer(port, passwords_of(parts), tls) as running:
        environment = {name: value for name, value in command_environment.items() if name != "DATABASE_URL"}
        ended = run(
            example(containing="DATABASE_POOLER=true"),
            {
                ":OWNER_PASSWORD": f":{parts.credentials.postgres_owner}",
                ":PASSWORD": f":{parts.credentials.postgres_application}",
                "pooler.example.com:6432": f"127.0.0.1:{running.port}",
                "database.example.com:5432": f"127.0.0.1:{running.port}",
                "/etc/ssl/database-ca.pem": str(authority.certificate_file),
            },
            {**environment, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        )

    found = dict(line.split("\t")[:2] for line in ended.stdout.splitlines() if line.count("\t") == 2)
    assert {part: found.get(part) for part in _PARTS} == dict.fromkeys(_PARTS, "ok"), (ended.stdout, ended.stderr)
    assert ended.stderr == ""
