"""Queries the end offsets of all partitions in one request to each leader."""

from contextlib import suppress

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from service.domain.errors import Unavailable
from service.stream.connection import Admin
from service.stream.errors import mapped_errors
from service.stream.topics import Topic


def end_offsets(admin: Admin, partitions: int, timeout_seconds: float) -> dict[int, int]:
    """Return the end offsets of the partitions whose leader answers; raise Unavailable if none does."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = {TopicPartition(Topic.ISSUE_COUPON, partition): latest for partition in range(partitions)}
    with mapped_errors():
        answers = admin.list_offsets(asked, request_timeout=timeout_seconds)
    found, error = {}, Unavailable("Kafka", "no leader answered")
    for at, answer in answers.items():
        try:
            with mapped_errors(admin):
                found[at.partition] = answer.result(timeout_seconds).offset
        except Unavailable as failed:
            error = failed
    if len(found) < partitions:
        _learn_leaders(admin, timeout_seconds)
    if not found:
        raise error
    return found


def _learn_leaders(admin: Admin, timeout_seconds: float) -> None:
    """Fetch the metadata for the next query.

    The client asks the leaders that it knows, in the epoch that it knows, and would not learn of another one: after a
    restart of its broker a partition would never answer again.
    """
    with suppress(KafkaException):
        admin.list_topics(Topic.ISSUE_COUPON, timeout=timeout_seconds)
