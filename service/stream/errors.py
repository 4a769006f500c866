"""What the errors of the Kafka client and of decoding mean: their failure classes, and Unavailable for callers."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from confluent_kafka import KafkaException

from service.domain.errors import NotPermitted, Unavailable
from service.domain.failures import Failure, FailureClass, classify, describe, register

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


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Raise Unavailable for client errors and when no broker answers in time, NotPermitted for a refused right."""
    try:
        yield
    except KafkaException as error:
        refused = error.args[0].name() in _REFUSALS
        raise (NotPermitted if refused else Unavailable)("Kafka", str(error.args[0])) from error
    except TimeoutError as error:
        raise Unavailable("Kafka", "no broker answered in time") from error
