"""What the errors of the Kafka client and of decoding mean: their failure classes, and Unavailable for callers."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from confluent_kafka import KafkaError, KafkaException

from service.domain.errors import NotPermitted, Unavailable
from service.domain.failures import Failure, FailureClass, classify, describe, register
from service.stream.connection import Admin, explain

#: librdkafka's names of the errors that concern one record; every other error concerns the system
RECORD_ERRORS = frozenset({"MSG_SIZE_TOO_LARGE", "INVALID_RECORD", "INVALID_MSG", "INVALID_MSG_SIZE"})

#: librdkafka's names of the errors with which a broker refuses a right
_REFUSALS = frozenset(
    {
        "TOPIC_AUTHORIZATION_FAILED",
        "GROUP_AUTHORIZATION_FAILED",
        "CLUSTER_AUTHORIZATION_FAILED",
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        "SASL_AUTHENTICATION_FAILED",
        "_AUTHENTICATION",
    }
)


@classify.register
def _classify_kafka_error(error: KafkaException) -> Failure:
    record = error.args[0].name() in RECORD_ERRORS
    return describe(FailureClass.RECORD if record else FailureClass.SYSTEM, error)


register(FailureClass.POISON, msgspec.DecodeError)


#: librdkafka's names of the errors of a call that got no answer: they do not say why
_NO_ANSWER = frozenset({"_TIMED_OUT", "_TRANSPORT", "_ALL_BROKERS_DOWN", "REQUEST_TIMED_OUT"})


@contextmanager
def mapped_errors(admin: Admin | None = None) -> Iterator[None]:
    """Raise Unavailable for client errors and when no broker answers in time, NotPermitted for a refused right.

    `admin` is the client that is used, if it is one: then the reason says why there is no connection.
    """
    try:
        yield
    except KafkaException as error:
        raise _mapped(error.args[0], admin) from error
    except TimeoutError as error:
        raise _mapped(None, admin) from error
    if admin is not None:
        admin.forget_fault()


def _mapped(error: KafkaError | None, admin: Admin | None) -> Unavailable:
    if admin is not None and (error is None or error.name() in _NO_ANSWER):
        error = admin.connection_fault() or error
    if error is None:
        return Unavailable("Kafka", "no broker answered in time")
    return (NotPermitted if error.name() in _REFUSALS else Unavailable)("Kafka", explain(error))
