"""The dead-letter listener: dead letters that cannot be stored together are stored one by one, in order."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event

import pytest
from confluent_kafka import Producer
from sqlalchemy import Engine

from service.config import Settings
from service.domain.record import RawRecord
from service.resources import Resources
from service.stream import clients
from service.stream.codec import RecordReader
from service.stream.topics import Topic
from service.usecases import dead_letter_topic
from tests.integration.conftest import Query
from tests.waiting import eventually
from workers.issuer.dead_letter_listener import DeadLetterListener
from workers.issuer.health import Health

_STORED = "SELECT value FROM dead_letters WHERE value IN ('first', 'bad', 'last') ORDER BY dlt_offset"


class RefusingStore:
    """Stores dead letters like the use case, but no batch that contains the bad one until the test allows it."""

    def __init__(self) -> None:
        self._store_received = dead_letter_topic.store_received
        self.allowed = Event()
        #: number of dead letters of each call
        self.batches: list[int] = []

    def __call__(self, engine: Engine, reader: RecordReader, raws: Sequence[RawRecord]) -> None:
        self.batches.append(len(raws))
        if not self.allowed.is_set() and any(raw.value == b"bad" for raw in raws):
            raise ValueError("this one cannot be stored")
        self._store_received(engine, reader, raws)


@contextmanager
def listening(resources: Resources, settings: Settings) -> Iterator[Health]:
    """Run the listener in a thread of this process; yields its health."""
    health = Health()
    listener = DeadLetterListener(resources, partial(clients.build_dead_letter_consumer, settings), health)
    listener.start()
    try:
        yield health
    finally:
        listener.close()


def test_a_dead_letter_that_cannot_be_stored_is_tried_again_alone(
    resources: Resources, settings: Settings, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before it in its batch are stored; it and those after it are not skipped."""
    store = RefusingStore()
    monkeypatch.setattr(dead_letter_topic, "store_received", store)
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    for value in (b"first", b"bad", b"last"):
        producer.produce(Topic.DEAD_LETTERS, value, partition=0)
    producer.flush(10)

    with listening(resources, settings) as health:
        eventually(lambda: [row.value for row in query(_STORED)] == [b"first"] and store.batches[-2:] == [1, 1])
        assert "dead letters" in health.reasons
        store.allowed.set()
        eventually(lambda: [row.value for row in query(_STORED)] == [b"first", b"bad", b"last"])
        eventually(lambda: "dead letters" not in health.reasons)
