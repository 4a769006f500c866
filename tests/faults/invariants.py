"""The invariants that are checked under faults, and a counter of the checks: an unchecked invariant proves nothing."""

from collections import Counter
from enum import StrEnum


class Invariant(StrEnum):
    """Every kind of check; the value is its name in the report."""

    FAULT_OCCURRED = "the fault occurred"
    NEVER_OVER_ISSUED = "P1 issued + held ≤ quantity, counted from the rows during the fault"
    OFFSETS_ADVANCE = "P3 no decided offset moved back during the fault"
    P1 = "P1 never over-issued, proven from log and database"
    P2 = "P2 one per user, proven from log and database"
    P3 = "P3 in order, proven from log and database"
    P4 = "P4 nothing lost, proven from log and database"
    P5 = "P5 no answer contradicted, proven from the clients' history"
    ACCEPTED_ALL_FINAL = "P4 accepted = issued + refused + dead"
    ALL_USERS_ANSWERED = "every user got an answer in the end"
    NOTICES_DELIVERED = "every decision has one notice under one webhook-id, and no notice lacks a decision"
    READINESS = "unready during the fault, ready again afterwards"
    NO_OTHER_RESTART = "no process restarted except those that the fault may end"
    WITHIN_BOUND = "work resumed within its time limit"
    ROW_SPECIFIC = "conditions of a single row"


class InvariantViolated(AssertionError):
    """An invariant does not hold."""


class InvariantChecker:
    """Count the checks of a run and record those that failed."""

    def __init__(self) -> None:
        self.counts: Counter[Invariant] = Counter()
        self.violations: list[str] = []

    def check(self, invariant: Invariant, holds: object, detail: object = "", times: int = 1) -> None:
        """Count a check; raise InvariantViolated with the detail if `holds` is false."""
        self.counts[invariant] += times
        if not holds:
            self.violations.append(f"{invariant}: {detail}")
            raise InvariantViolated(f"{invariant}: {detail}")
