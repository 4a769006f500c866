"""The one table that gives a failure its fate."""

import msgspec
import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.domain.errors import Fenced, Unavailable
from service.domain.failures import CLASSES, SQLSTATES, FailureClass, PoisonRecord, class_of_sqlstate, classify


def _kafka(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


#: of each row of the table one SQLSTATE that a server really sends, and some that no row names
_ANSWERS = {
    "08000": FailureClass.SYSTEM,
    "08006": FailureClass.SYSTEM,
    "0A000": FailureClass.SYSTEM,
    "22012": FailureClass.RECORD,
    "22021": FailureClass.RECORD,
    "23502": FailureClass.RECORD,
    "23505": FailureClass.DECIDE_AGAIN,
    "23514": FailureClass.RECORD,
    "25006": FailureClass.SYSTEM,
    "25P03": FailureClass.SYSTEM,
    "25P04": FailureClass.SYSTEM,
    "28P01": FailureClass.SYSTEM,
    "3D000": FailureClass.SYSTEM,
    "3F000": FailureClass.SYSTEM,
    "40001": FailureClass.SYSTEM,
    "40P01": FailureClass.SYSTEM,
    "42P01": FailureClass.SYSTEM,
    "42501": FailureClass.SYSTEM,
    "53100": FailureClass.SYSTEM,
    "53300": FailureClass.SYSTEM,
    "55P03": FailureClass.SYSTEM,
    "57014": FailureClass.SYSTEM,
    "57P01": FailureClass.SYSTEM,
    "58030": FailureClass.SYSTEM,
    "F0000": FailureClass.SYSTEM,
    "XX000": FailureClass.SYSTEM,
    "P0001": FailureClass.RECORD,
    "21000": FailureClass.RECORD,
}


@pytest.mark.parametrize(("sqlstate", "fate"), _ANSWERS.items())
def test_each_class_of_database_error_has_one_fate(sqlstate: str, fate: FailureClass) -> None:
    """Step 5: what only this row can mend is the row's, what time or an operator mends is the system's."""
    assert class_of_sqlstate(sqlstate) is fate


def test_every_row_of_the_table_is_tested() -> None:
    """A row that is added without a test here is noticed."""
    assert {row for row in SQLSTATES if not any(answer.startswith(row) for answer in _ANSWERS)} == set()


def test_the_tables_are_frozen() -> None:
    """Nobody changes a fate while the system runs."""
    for table in (SQLSTATES, CLASSES):
        with pytest.raises(TypeError):
            table["42"] = FailureClass.RECORD  # type: ignore[index]


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (PoisonRecord("bad"), FailureClass.POISON),
        (Unavailable("Kafka", "it is away"), FailureClass.SYSTEM),
        (Fenced([1]), FailureClass.SYSTEM),
        (ConnectionResetError("reset"), FailureClass.SYSTEM),
        (TimeoutError("slow"), FailureClass.SYSTEM),
        (psycopg.OperationalError("the connection is closed"), FailureClass.SYSTEM),
        (psycopg.errors.DeadlockDetected("deadlock"), FailureClass.SYSTEM),
        (psycopg.errors.UniqueViolation("twice"), FailureClass.DECIDE_AGAIN),
        (psycopg.errors.DivisionByZero("zero"), FailureClass.RECORD),
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), FailureClass.RECORD),
        (psycopg.IntegrityError("refused by the driver"), FailureClass.RECORD),
        (psycopg.NotSupportedError("refused by the driver"), FailureClass.RECORD),
        (psycopg.InterfaceError("the cursor is closed"), FailureClass.SYSTEM),
        (PoolTimeout("QueuePool limit"), FailureClass.SYSTEM),
        (RedisConnectionError("refused"), FailureClass.SYSTEM),
        (MemoryError(), FailureClass.SYSTEM),
        (msgspec.ValidationError("Expected `int`"), FailureClass.POISON),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), FailureClass.POISON),
        (_kafka(KafkaError._ALL_BROKERS_DOWN), FailureClass.SYSTEM),
        (_kafka(KafkaError._TIMED_OUT), FailureClass.SYSTEM),
        (_kafka(KafkaError.NOT_LEADER_FOR_PARTITION), FailureClass.SYSTEM),  # retriable
        (KafkaException(KafkaError(KafkaError._FATAL, "fenced", fatal=True)), FailureClass.SYSTEM),
        (_kafka(KafkaError.TOPIC_AUTHORIZATION_FAILED), FailureClass.SYSTEM),
        (_kafka(KafkaError.MSG_SIZE_TOO_LARGE), FailureClass.RECORD),
        (_kafka(KafkaError.INVALID_RECORD), FailureClass.RECORD),
        (_kafka(KafkaError.INVALID_MSG), FailureClass.RECORD),
        (_kafka(KafkaError.INVALID_MSG_SIZE), FailureClass.RECORD),
        (ValueError("never seen before"), FailureClass.RECORD),
        (ZeroDivisionError("never seen before"), FailureClass.RECORD),
    ],
    ids=lambda value: f"{type(value).__name__} {value}"[:60] if isinstance(value, Exception) else str(value),
)
def test_each_class_of_error_has_one_fate(error: Exception, fate: FailureClass) -> None:
    """Step 5: poison by its class, the system's troubles by theirs, and what nobody foresaw is the record's."""
    assert classify(error).failure_class is fate


@pytest.mark.parametrize(
    ("wrapped", "fate"),
    [
        (OperationalError("COPY", {}, psycopg.errors.DeadlockDetected("deadlock")), FailureClass.SYSTEM),
        (IntegrityError("INSERT", {}, psycopg.errors.UniqueViolation("twice")), FailureClass.DECIDE_AGAIN),
        (IntegrityError("INSERT", {}, psycopg.errors.CheckViolation("too many")), FailureClass.RECORD),
        (OperationalError("SELECT", {}, psycopg.OperationalError("no server")), FailureClass.SYSTEM),
    ],
)
def test_the_drivers_error_counts_not_its_wrapping(
    wrapped: IntegrityError | OperationalError, fate: FailureClass
) -> None:
    """Step 5: an error that SQLAlchemy wrapped has the fate, the name and the message of the driver's own."""
    failure = classify(wrapped)

    assert failure.failure_class is fate
    assert failure.error_type == f"psycopg.{'errors.' if wrapped.orig.sqlstate else ''}{type(wrapped.orig).__name__}"  # type: ignore[union-attr]
    assert failure.message == str(wrapped.orig)


def test_a_failure_is_told_in_bounded_length() -> None:
    """Step 7: an endless message does not make an endless dead letter."""
    failure = classify(ValueError("x" * 1_000_000))

    assert len(failure.message) == 2000
    assert str(failure).startswith("builtins.ValueError: xxx")
