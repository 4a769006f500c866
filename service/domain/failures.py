"""The five failure classes, and the function that assigns one of them to each exception.

`refused` is an answer and is never assigned to an exception.
Adapters register the exceptions of their libraries: service/store/errors.py, service/stream/errors.py,
service/gate/client.py.
"""

from enum import StrEnum
from functools import partial, singledispatch
from typing import NamedTuple

from service.domain.errors import PoisonRecord, Retryable, UnverifiedRequestId
from service.limits import MAX_ERROR_LENGTH


class FailureClass(StrEnum):
    """How the issuer treats a request whose issuing did not succeed."""

    #: a business answer: final, never retried, and never assigned to an exception
    REFUSED = "refused"
    #: the record cannot be decoded or can never succeed: dead letter at once, the partition goes on
    POISON = "poison"
    #: this one request failed: its seat is held and Celery retries it, the partition goes on
    RECORD = "record"
    #: the database, the broker or this process failed: the partition pauses, no attempt is counted
    SYSTEM = "system"
    #: another writer decided first: read again and decide again
    DECIDE_AGAIN = "decide_again"


class Failure(NamedTuple):
    """An error as it is stored, shown to operators and written into a dead letter's headers."""

    failure_class: FailureClass
    #: dotted name of the exception's class
    error_type: str
    message: str

    def __str__(self) -> str:
        return f"{self.error_type}: {self.message}"


def describe(failure_class: FailureClass, error: BaseException) -> Failure:
    """Return the failure of an exception whose class is known."""
    return Failure(failure_class, error_type_name(type(error)), str(error).strip()[:MAX_ERROR_LENGTH])


def error_type_name(kind: type[BaseException]) -> str:
    """Return the dotted name of an exception's class, as failures and dead letters show it."""
    return f"{kind.__module__}.{kind.__qualname__}"


#: the error type of a record whose request id no key verifies
UNVERIFIED = error_type_name(UnverifiedRequestId)


@singledispatch
def classify(error: BaseException) -> Failure:
    """Return the failure of an exception, by the most specific class registered for it.

    An unregistered exception is classified as RECORD, so that a defect triggered by one request does not stop the
    partition.
    """
    return describe(FailureClass.RECORD, error)


def register(failure_class: FailureClass, *error_types: type[BaseException]) -> None:
    """Assign a failure class to exception types and their subclasses."""
    for error_type in error_types:
        classify.register(error_type, partial(describe, failure_class))


register(FailureClass.POISON, PoisonRecord, UnicodeDecodeError)
register(FailureClass.SYSTEM, Retryable, OSError, MemoryError)
