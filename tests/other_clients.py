"""Other applications' clients of Kafka that keep partitions from being decided."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from confluent_kafka import Consumer, Producer

from service.stream.codec import encode_key
from service.stream.partitioner import partition_of
from service.stream.topics import Group, Topic
from tests.builders import PARTITIONS
from tests.waiting import eventually

#: the stranger's client id; a control character in it must not reach a terminal
STRANGER = "another application\x1b[31m"
#: how alerts and reasons name it
NAMED_STRANGER = f"held by client {STRANGER!r} at '/127.0.0.1' (member"


@contextmanager
def stranger_in_group(bootstrap_servers: str) -> Iterator[set[int]]:
    """Have a consumer of another application in the issuers' group; yield the partitions that it holds."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": Group.ISSUER,
            "client.id": STRANGER,
            "partition.assignment.strategy": "cooperative-sticky",
            "auto.offset.reset": "earliest",
        }
    )
    held: set[int] = set()
    leaving = Event()

    def poll() -> None:
        consumer.subscribe(
            [Topic.ISSUE_COUPON], on_assign=lambda _, partitions: held.update(at.partition for at in partitions)
        )
        while not leaving.is_set():
            consumer.poll(0.1)
        consumer.close()

    polling = Thread(target=poll, name="stranger")
    polling.start()
    try:
        yield eventually(lambda: held)
    finally:
        leaving.set()
        polling.join()


@contextmanager
def open_transaction(bootstrap_servers: str, coupon_id: int, *, committed_first: bool = False) -> Iterator[None]:
    """Have a record of an open transaction in the coupon's partition during the block; abort it at the end.

    With `committed_first`, a transaction of the same producer is committed before.
    """
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": STRANGER})
    partition = partition_of(coupon_id, PARTITIONS)
    producer.init_transactions(10)
    if committed_first:
        producer.begin_transaction()
        producer.produce(Topic.ISSUE_COUPON, b"{}", encode_key(coupon_id), partition)
        producer.commit_transaction(10)
    producer.begin_transaction()
    producer.produce(Topic.ISSUE_COUPON, b"{}", encode_key(coupon_id), partition)
    producer.flush(10)
    try:
        yield
    finally:
        producer.abort_transaction(10)
