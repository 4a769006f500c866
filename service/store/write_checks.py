"""The write by which readiness checks that the database accepts writes."""

from sqlalchemy import Connection, text


def record(tx: Connection, process: str) -> None:
    """Write the row of a kind of process, for example "api"."""
    tx.execute(
        text(
            "INSERT INTO write_checks (process, written_at) VALUES (:process, clock_timestamp())"
            " ON CONFLICT (process) DO UPDATE SET written_at = excluded.written_at"
        ),
        {"process": process},
    )
