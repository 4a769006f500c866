"""The one table that gives a failure its fate."""

import psycopg
import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from service.domain.errors import Fenced, Unavailable
from service.domain.fates import Fate, Poison, failure_of, fate_of


@pytest.mark.parametrize(
    ("sqlstate", "fate"),
    [
        (None, Fate.SYSTEM),
        ("08000", Fate.SYSTEM),
        ("08006", Fate.SYSTEM),
        ("22012", Fate.RECORD),
        ("22021", Fate.RECORD),
        ("23502", Fate.RECORD),
        ("23505", Fate.DECIDE_AGAIN),
        ("23514", Fate.RECORD),
        ("25P03", Fate.SYSTEM),
        ("25P04", Fate.SYSTEM),
        ("40001", Fate.SYSTEM),
        ("40P01", Fate.SYSTEM),
        ("53100", Fate.SYSTEM),
        ("53300", Fate.SYSTEM),
        ("55P03", Fate.SYSTEM),
        ("57014", Fate.SYSTEM),
        ("57P01", Fate.SYSTEM),
        ("58030", Fate.SYSTEM),
        ("XX000", Fate.SYSTEM),
        ("P0001", Fate.RECORD),
    ],
)
def test_each_class_of_database_error_has_one_fate(sqlstate: str | None, fate: Fate) -> None:
    """Step 5: what only this row can mend is the row's, what time mends is the system's."""
    assert fate_of(sqlstate) is fate


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (Poison("bad"), Fate.POISON),
        (Unavailable("Kafka", "it is away"), Fate.SYSTEM),
        (Fenced([1]), Fate.SYSTEM),
        (ConnectionResetError("reset"), Fate.SYSTEM),
        (TimeoutError("slow"), Fate.SYSTEM),
        (psycopg.OperationalError("the connection is closed"), Fate.SYSTEM),
        (psycopg.errors.DeadlockDetected("deadlock"), Fate.SYSTEM),
        (psycopg.errors.UniqueViolation("twice"), Fate.DECIDE_AGAIN),
        (psycopg.errors.DivisionByZero("zero"), Fate.RECORD),
        (ValueError("never seen before"), Fate.RECORD),
        (ZeroDivisionError("never seen before"), Fate.RECORD),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_class_of_error_has_one_fate(error: Exception, fate: Fate) -> None:
    """Step 5: poison by its class, the system's troubles by theirs, and what nobody foresaw is the record's."""
    assert failure_of(error).fate is fate


@pytest.mark.parametrize(
    ("wrapped", "fate"),
    [
        (OperationalError("COPY", {}, psycopg.errors.DeadlockDetected("deadlock")), Fate.SYSTEM),
        (IntegrityError("INSERT", {}, psycopg.errors.UniqueViolation("twice")), Fate.DECIDE_AGAIN),
        (IntegrityError("INSERT", {}, psycopg.errors.CheckViolation("too many")), Fate.RECORD),
        (OperationalError("SELECT", {}, psycopg.OperationalError("no server")), Fate.SYSTEM),
    ],
)
def test_the_drivers_error_counts_not_its_wrapping(wrapped: IntegrityError | OperationalError, fate: Fate) -> None:
    """Step 5: an error that SQLAlchemy wrapped has the fate, the name and the message of the driver's own."""
    failure = failure_of(wrapped)

    assert failure.fate is fate
    assert failure.kind == f"psycopg.{'errors.' if wrapped.orig.sqlstate else ''}{type(wrapped.orig).__name__}"  # type: ignore[union-attr]
    assert failure.message == str(wrapped.orig)


def test_a_failure_is_told_in_bounded_length() -> None:
    """Step 7: an endless message does not make an endless dead letter."""
    failure = failure_of(ValueError("x" * 1_000_000))

    assert len(failure.message) == 2000
    assert str(failure).startswith("builtins.ValueError: xxx")
