"""What is checked under faults, by name, and how often it was: a promise that nobody checked has not been kept."""

from collections import Counter
from enum import StrEnum


class Invariant(StrEnum):
    """Every kind of check there is; the value is how the table names it."""

    BITTEN = "the fault happened"
    NEVER_OVER_ISSUED = "P1 issued + held ≤ quantity, counted from the rows while the fault lasted"
    NEVER_BACK = "P3 decided offsets never went back while the fault lasted"
    P1 = "P1 never over-issued, proven from log and database"
    P2 = "P2 one per user, proven from log and database"
    P3 = "P3 in order, proven from log and database"
    P4 = "P4 nothing lost, proven from log and database"
    P5 = "P5 no answer contradicted, proven from the clients' history"
    SUM = "P4 accepted = issued + refused + dead"
    ANSWERED = "every user was answered in the end"
    TOLD = "notices: every decision told, under one webhook-id, and nothing told that was not decided"
    READINESS = "readiness red while it lasted, green afterwards"
    SPARED = "no process had to be restarted but the one that was broken"
    IN_TIME = "work went on within its bound"
    AS_PROMISED = "what this row demands besides"


class Violated(AssertionError):
    """A promise was broken."""


class Ledger:
    """Counts the checks of a run and those that failed."""

    def __init__(self) -> None:
        self.made: Counter[Invariant] = Counter()
        self.violations: list[str] = []

    def check(self, invariant: Invariant, kept: object, detail: object = "", times: int = 1) -> None:
        """Counts a check; raises Violated unless it was kept."""
        self.made[invariant] += times
        if not kept:
            self.violations.append(f"{invariant}: {detail}")
            raise Violated(f"{invariant}: {detail}")
