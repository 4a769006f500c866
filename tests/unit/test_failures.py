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
from service.store.errors import SQLSTATES, class_of_sqlstate, ends_connection
from service.stream import errors as stream_errors

#: importing an adapter registers its exceptions
ADAPTERS = (gate_errors, stream_errors)


def _kafka(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


#: every class of appendix A, with what a server means by it
_CLASSES = {
    "02": FailureClass.SYSTEM,
    "03": FailureClass.SYSTEM,
    "08": FailureClass.SYSTEM,
    "09": FailureClass.RECORD,
    "0A": FailureClass.SYSTEM,
    "0B": FailureClass.SYSTEM,
    "0F": FailureClass.SYSTEM,
    "0L": FailureClass.SYSTEM,
    "0P": FailureClass.SYSTEM,
    "0Z": FailureClass.SYSTEM,
    "10": FailureClass.SYSTEM,
    "20": FailureClass.RECORD,
    "21": FailureClass.RECORD,
    "22": FailureClass.RECORD,
    "23": FailureClass.RECORD,
    "24": FailureClass.SYSTEM,
    "25": FailureClass.SYSTEM,
    "26": FailureClass.SYSTEM,
    "27": FailureClass.SYSTEM,
    "28": FailureClass.SYSTEM,
    "2B": FailureClass.SYSTEM,
    "2D": FailureClass.SYSTEM,
    "2F": FailureClass.SYSTEM,
    "34": FailureClass.SYSTEM,
    "38": FailureClass.SYSTEM,
    "39": FailureClass.SYSTEM,
    "3B": FailureClass.SYSTEM,
    "3D": FailureClass.SYSTEM,
    "3F": FailureClass.SYSTEM,
    "40": FailureClass.SYSTEM,
    "42": FailureClass.SYSTEM,
    "44": FailureClass.RECORD,
    "53": FailureClass.SYSTEM,
    "54": FailureClass.SYSTEM,
    "55": FailureClass.SYSTEM,
    "57": FailureClass.SYSTEM,
    "58": FailureClass.SYSTEM,
    "72": FailureClass.SYSTEM,
    "F0": FailureClass.SYSTEM,
    "HV": FailureClass.SYSTEM,
    "P0": FailureClass.RECORD,
    "XX": FailureClass.SYSTEM,
}
#: errors that differ from their class
_EXCEPTIONS = {
    "2200H": FailureClass.SYSTEM,
    "23505": FailureClass.DECIDE_AGAIN,
    "38000": FailureClass.RECORD,
    "54000": FailureClass.RECORD,
}
#: every error of appendix A
_SQLSTATES = sorted(
    {found for error in vars(psycopg.errors).values() if isinstance(found := getattr(error, "sqlstate", None), str)}
)


@pytest.mark.parametrize("sqlstate", _SQLSTATES)
def test_each_sqlstate_has_one_failure_class(sqlstate: str) -> None:
    """A fault of the row is the record's; a fault that time or an operator removes is the system's."""
    expected = _EXCEPTIONS.get(sqlstate) or _CLASSES[sqlstate[:2]]

    assert class_of_sqlstate(sqlstate) is expected
    assert classify(psycopg.errors.lookup(sqlstate)("an error of the server")).failure_class is expected


def test_every_class_of_the_appendix_is_tested() -> None:
    """A class that a later PostgreSQL adds fails here until it is decided."""
    assert {sqlstate[:2] for sqlstate in _SQLSTATES} == _CLASSES.keys()


def test_a_sqlstate_that_postgresql_does_not_define_is_the_systems() -> None:
    """P4: an error of a pooler, an extension or a later server does not spend a request's attempts."""
    assert class_of_sqlstate("ZZ999") is FailureClass.SYSTEM


@pytest.mark.parametrize(
    ("sqlstate", "ends"),
    [
        ("08P01", True),
        ("25006", True),
        ("25P02", True),
        ("26000", True),
        ("28000", True),
        ("28P01", True),
        ("3D000", True),
        ("42501", True),
        ("42P05", True),
        ("57P01", True),
        ("57P02", True),
        ("57P03", True),
        ("57P04", True),
        ("57P05", True),
        ("F0000", True),
        ("22012", False),
        ("23505", False),
        ("40001", False),
        ("40P01", False),
        ("42P01", False),
        ("53100", False),
        ("55P03", False),
        ("57014", False),
    ],
)
def test_an_error_of_server_or_session_ends_the_connection(sqlstate: str, ends: bool) -> None:
    """Data, locks and timeouts keep the connection: a new one would not help."""
    assert ends_connection(psycopg.errors.lookup(sqlstate)("an error of the server")) is ends


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
