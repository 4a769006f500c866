"""Every exception has one failure class, registered by the adapter that knows its library."""

import msgspec
import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.domain.errors import Fenced, PoisonRecord, Unavailable
from service.domain.failures import FailureClass, classify
from service.gate import client as gate_errors
from service.store.errors import SQLSTATES, class_of_sqlstate
from service.stream import errors as stream_errors

#: importing an adapter registers its exceptions
ADAPTERS = (gate_errors, stream_errors)


def _kafka(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


#: for each row of the table a SQLSTATE that a server returns, and some that no row covers
_CLASSES = {
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


@pytest.mark.parametrize(("sqlstate", "failure_class"), _CLASSES.items())
def test_each_sqlstate_has_one_failure_class(sqlstate: str, failure_class: FailureClass) -> None:
    """A fault of the row is the record's; a fault that time or an operator removes is the system's."""
    assert class_of_sqlstate(sqlstate) is failure_class


def test_every_row_of_the_table_is_tested() -> None:
    """A row of the table without a case in this module fails here."""
    assert {row for row in SQLSTATES if not any(sqlstate.startswith(row) for sqlstate in _CLASSES)} == set()


def test_the_table_is_frozen() -> None:
    """The failure class of a SQLSTATE cannot change while a process runs."""
    with pytest.raises(TypeError):
        SQLSTATES["42"] = FailureClass.RECORD  # type: ignore[index]


def test_an_unregistered_exception_is_the_records_own() -> None:
    """The explicit default: a defect that one record triggers must not stop its partition."""

    class NeverRegistered(Exception):
        pass

    assert classify(NeverRegistered("unforeseen")).failure_class is FailureClass.RECORD


@pytest.mark.parametrize(
    ("error", "failure_class"),
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
def test_each_exception_has_one_failure_class(error: Exception, failure_class: FailureClass) -> None:
    """The most specific registered class of an exception decides."""
    assert classify(error).failure_class is failure_class


@pytest.mark.parametrize(
    ("wrapped", "failure_class"),
    [
        (OperationalError("COPY", {}, psycopg.errors.DeadlockDetected("deadlock")), FailureClass.SYSTEM),
        (IntegrityError("INSERT", {}, psycopg.errors.UniqueViolation("twice")), FailureClass.DECIDE_AGAIN),
        (IntegrityError("INSERT", {}, psycopg.errors.CheckViolation("too many")), FailureClass.RECORD),
        (OperationalError("SELECT", {}, psycopg.OperationalError("no server")), FailureClass.SYSTEM),
    ],
)
def test_a_wrapped_error_is_classified_by_the_drivers_error(
    wrapped: IntegrityError | OperationalError, failure_class: FailureClass
) -> None:
    """An error wrapped by SQLAlchemy has the class, the name and the message of the driver's error."""
    failure = classify(wrapped)

    assert failure.failure_class is failure_class
    assert failure.error_type == f"psycopg.{'errors.' if wrapped.orig.sqlstate else ''}{type(wrapped.orig).__name__}"  # type: ignore[union-attr]
    assert failure.message == str(wrapped.orig)


def test_a_failure_message_is_bounded() -> None:
    """A very long message does not make a very long dead letter."""
    failure = classify(ValueError("x" * 1_000_000))

    assert len(failure.message) == 2000
    assert str(failure).startswith("builtins.ValueError: xxx")
