"""The one table that gives a failure its fate."""

import msgspec
import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.domain.errors import Fenced, Unavailable
from service.domain.fates import CLASSES, SQLSTATES, Fate, Poison, failure_of, fate_of


def _kafka(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


#: of each row of the table one SQLSTATE that a server really sends, and some that no row names
_ANSWERS = {
    "08000": Fate.SYSTEM,
    "08006": Fate.SYSTEM,
    "0A000": Fate.SYSTEM,
    "22012": Fate.RECORD,
    "22021": Fate.RECORD,
    "23502": Fate.RECORD,
    "23505": Fate.DECIDE_AGAIN,
    "23514": Fate.RECORD,
    "25006": Fate.SYSTEM,
    "25P03": Fate.SYSTEM,
    "25P04": Fate.SYSTEM,
    "28P01": Fate.SYSTEM,
    "3D000": Fate.SYSTEM,
    "3F000": Fate.SYSTEM,
    "40001": Fate.SYSTEM,
    "40P01": Fate.SYSTEM,
    "42P01": Fate.SYSTEM,
    "42501": Fate.SYSTEM,
    "53100": Fate.SYSTEM,
    "53300": Fate.SYSTEM,
    "55P03": Fate.SYSTEM,
    "57014": Fate.SYSTEM,
    "57P01": Fate.SYSTEM,
    "58030": Fate.SYSTEM,
    "F0000": Fate.SYSTEM,
    "XX000": Fate.SYSTEM,
    "P0001": Fate.RECORD,
    "21000": Fate.RECORD,
}


@pytest.mark.parametrize(("sqlstate", "fate"), _ANSWERS.items())
def test_each_class_of_database_error_has_one_fate(sqlstate: str, fate: Fate) -> None:
    """Step 5: what only this row can mend is the row's, what time or an operator mends is the system's."""
    assert fate_of(sqlstate) is fate


def test_every_row_of_the_table_is_tested() -> None:
    """A row that is added without a test here is noticed."""
    assert {row for row in SQLSTATES if not any(answer.startswith(row) for answer in _ANSWERS)} == set()


def test_the_tables_are_frozen() -> None:
    """Nobody changes a fate while the system runs."""
    for table in (SQLSTATES, CLASSES):
        with pytest.raises(TypeError):
            table["42"] = Fate.RECORD  # type: ignore[index]


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
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), Fate.RECORD),
        (psycopg.IntegrityError("refused by the driver"), Fate.RECORD),
        (psycopg.NotSupportedError("refused by the driver"), Fate.RECORD),
        (psycopg.InterfaceError("the cursor is closed"), Fate.SYSTEM),
        (PoolTimeout("QueuePool limit"), Fate.SYSTEM),
        (RedisConnectionError("refused"), Fate.SYSTEM),
        (MemoryError(), Fate.SYSTEM),
        (msgspec.ValidationError("Expected `int`"), Fate.POISON),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), Fate.POISON),
        (_kafka(KafkaError._ALL_BROKERS_DOWN), Fate.SYSTEM),
        (_kafka(KafkaError._TIMED_OUT), Fate.SYSTEM),
        (_kafka(KafkaError.NOT_LEADER_FOR_PARTITION), Fate.SYSTEM),  # retriable
        (KafkaException(KafkaError(KafkaError._FATAL, "fenced", fatal=True)), Fate.SYSTEM),
        (_kafka(KafkaError.TOPIC_AUTHORIZATION_FAILED), Fate.SYSTEM),
        (_kafka(KafkaError.MSG_SIZE_TOO_LARGE), Fate.RECORD),
        (_kafka(KafkaError.INVALID_RECORD), Fate.RECORD),
        (_kafka(KafkaError.INVALID_MSG), Fate.RECORD),
        (_kafka(KafkaError.INVALID_MSG_SIZE), Fate.RECORD),
        (ValueError("never seen before"), Fate.RECORD),
        (ZeroDivisionError("never seen before"), Fate.RECORD),
    ],
    ids=lambda value: f"{type(value).__name__} {value}"[:60] if isinstance(value, Exception) else str(value),
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
