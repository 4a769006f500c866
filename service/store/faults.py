"""Failures on demand, for demos and tests: the server raises the SQLSTATE that a request asked for."""

from collections.abc import Iterable

from sqlalchemy import Connection, text

from service.domain.record import Fault


def raise_first(tx: Connection, wanted: Iterable[tuple[Fault | None, int]]) -> None:
    """Raises, as part of the write, the first fault that still applies to its request's attempt, if there is one."""
    for fault, attempt in wanted:
        if fault and attempt <= fault.times:
            tx.execute(
                text(f"DO $$ BEGIN RAISE EXCEPTION 'a fault on demand' USING ERRCODE = '{fault.sqlstate}'; END $$")
            )
