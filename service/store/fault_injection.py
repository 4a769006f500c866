"""Failures on demand, for demos and tests: the server raises the SQLSTATE that a request asked for."""

from collections.abc import Iterable

from sqlalchemy import Connection, text

from service.domain.record import InjectedFault


def raise_statement(injected_fault: InjectedFault | None, attempt: int) -> str | None:
    """What raises the fault as a part of the write, if it still applies to this attempt."""
    if not injected_fault or attempt > injected_fault.times:
        return None
    return f"DO $$ BEGIN RAISE EXCEPTION 'a fault on demand' USING ERRCODE = '{injected_fault.sqlstate}'; END $$"


def raise_injected(tx: Connection, statements: Iterable[str | None]) -> None:
    """Raises the first of the faults, if there is one."""
    for raising in filter(None, statements):
        tx.execute(text(raising))
