"""Dead letters: forwarded until acknowledged, confirmed by their origin, foreign ones stored, none lost."""

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import Engine, text

from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.record import RawRecord
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.store import dead_letters as stored
from service.store import logs
from service.stream import clients, dead_letter_records, log_reader
from service.stream.codec import RecordReader
from service.stream.dead_letter_records import DeadLetterProducer
from service.stream.topics import Topic
from service.usecases import dead_letter_topic
from service.usecases.issue import Issuer
from tests.builders import AT_MS, TOPIC_ID, raw
from tests.integration.conftest import Query
from tests.waiting import eventually

SECONDS = 5.0
TINY = 0.05


@pytest.fixture
def poison(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: Callable[..., Coupon],
    ids: RequestIds,
    reader: RecordReader,
) -> list[RawRecord]:
    """Two records that could not be decoded and are dead letters."""
    coupon = make_coupon()
    undecodable = [raw(ids, coupon.id, 1, offset)._replace(value=b"\x00not json") for offset in (0, 1)]
    issuer.issue([reader.decode(record, TOPIC_ID) for record in undecodable], positions)
    return undecodable


def _producer(settings: Settings) -> DeadLetterProducer:
    return DeadLetterProducer(clients.build_producer(settings))


def _forwarded(settings: Settings, letters: list[RawRecord]) -> list[RawRecord]:
    """Return these dead letters as the topic has them; other tests may have left more there."""
    found = log_reader.read_records(settings, Topic.DEAD_LETTERS, letters[0].log_position.partition, None)
    return [record for record in found if record.value == letters[0].value][-len(letters) :]


def test_a_dead_letter_is_forwarded_as_it_was_and_confirmed(
    poison: list[RawRecord], settings: Settings, store: Engine, reader: RecordReader, query: Query
) -> None:
    """Same partition, key, value and headers, then Spring's headers; the listener confirms it."""
    assert dead_letter_topic.forward_dead_letters(store, _producer(settings), SECONDS, SECONDS) == 2
    forwarded = _forwarded(settings, poison)
    dead_letter_topic.store_received(store, reader, forwarded)

    for before, after in zip(poison, forwarded, strict=True):
        assert (after.key, after.value, after.log_position.partition) == (
            before.key,
            before.value,
            before.log_position.partition,
        )
        assert after.headers[: len(before.headers)] == before.headers
        assert dead_letter_records.parse_origin(after.headers) == (
            Topic.ISSUE_COUPON,
            before.log_position,
            before.appended_at_ms,
        )
    assert query("SELECT dlt_offset FROM dead_letters ORDER BY id") == [
        (record.log_position.offset,) for record in forwarded
    ]
    assert dead_letter_topic.forward_dead_letters(store, _producer(settings), SECONDS, SECONDS) == 0


def test_a_plain_consumer_finds_springs_headers(poison: list[RawRecord], settings: Settings, store: Engine) -> None:
    """What any Kafka client reads from the topic, compared with bytes written by hand."""
    dead_letter_topic.forward_dead_letters(store, _producer(settings), SECONDS, SECONDS)
    letter = _forwarded(settings, poison)[1]

    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": "somebody else"})
    consumer.assign([TopicPartition("ISSUE_COUPON.dlt", letter.log_position.partition, letter.log_position.offset)])
    message = consumer.poll(SECONDS)
    consumer.close()

    assert message is not None
    assert message.key() == b"1"
    assert poison[1].log_position.partition == 3
    assert list(message.headers() or ())[1:] == [
        ("kafka_dlt-original-topic", b"ISSUE_COUPON"),
        ("kafka_dlt-original-partition", b"\x00\x00\x00\x03"),
        ("kafka_dlt-original-offset", b"\x00\x00\x00\x00\x00\x00\x00\x01"),
        ("kafka_dlt-original-timestamp", b"\x00\x00\x01\x9b\x76\xda\xa8\x01"),
        ("kafka_dlt-original-timestamp-type", b"LogAppendTime"),
        ("kafka_dlt-original-consumer-group", b"coupon"),
        ("kafka_dlt-exception-fqcn", b"msgspec.DecodeError"),
        ("kafka_dlt-exception-message", b"JSON is malformed: invalid character (byte 0)"),
    ]


def test_a_second_copy_is_treated_like_the_first(
    poison: list[RawRecord], settings: Settings, store: Engine, reader: RecordReader, query: Query
) -> None:
    """P7: after a crash between the acknowledgement and its note, the copy that is forwarded changes nothing."""
    dead_letter_topic.forward_dead_letters(store, _producer(settings), SECONDS, SECONDS)
    first = _forwarded(settings, poison)[0]

    later, last = (first._replace(log_position=first.log_position._replace(offset=offset)) for offset in (2**40, 2**41))
    for batch in ([first, later], [last]):
        dead_letter_topic.store_received(store, reader, batch)

    assert query("SELECT count(*) FROM dead_letters") == [(2,)]
    assert query("SELECT dlt_offset FROM dead_letters WHERE dlt_offset IS NOT NULL") == [(first.log_position.offset,)]


def test_what_the_broker_did_not_acknowledge_waits(
    poison: list[RawRecord], settings: Settings, store: Engine, query: Query
) -> None:
    """Nothing waits for the topic, and nothing is lost while the broker is away."""
    away = settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:9", "produce_timeout_ms": 100})

    assert dead_letter_topic.forward_dead_letters(store, _producer(away), TINY, timeout_seconds=0.1) == 0

    assert query("SELECT count(*) FROM dead_letters WHERE forwarded_at IS NULL") == [(len(poison),)]
    assert eventually(lambda: dead_letter_topic.forward_dead_letters(store, _producer(settings), SECONDS, SECONDS)) == 2
    with store.begin() as tx:
        assert not stored.has_overdue(tx, grace_seconds=0)


@pytest.mark.usefixtures("poison")
def test_a_foreign_dead_letter_is_stored_once(store: Engine, reader: RecordReader, query: Query) -> None:
    """A dead letter of another producer, or with an unknown origin, is kept for the operators."""
    letter = RawRecord(LogPosition(0, 0), None, b"\xff", (("kafka_dlt-exception-message", b"no \x00 reason"),), AT_MS)

    for batch in ([letter, letter], [letter]):
        dead_letter_topic.store_received(store, reader, batch)

    (row,) = query("SELECT value, error_message, partition, dlt_offset FROM dead_letters WHERE log_id IS NULL")
    assert row == (b"\xff", "no \ufffd reason", None, 0)


def test_a_dead_letter_topic_that_was_created_again_is_read_from_its_beginning(
    poison: list[RawRecord], settings: Settings, store: Engine, reader: RecordReader, query: Query
) -> None:
    """A topic that was deleted and created again starts at offset 0; the old offsets stop nothing."""
    dead_letter_topic.forward_dead_letters(store, _producer(settings), SECONDS, SECONDS)
    first, second = _forwarded(settings, poison)
    dead_letter_topic.store_received(store, reader, [first])

    dead_letter_topic.store_received(store, reader, [second._replace(log_position=first.log_position)])

    assert query("SELECT count(*) FROM dead_letters WHERE dlt_offset IS NULL") == [(0,)]


def test_a_request_that_dies_again_is_forwarded_again(
    poison: list[RawRecord], settings: Settings, store: Engine, reader: RecordReader, query: Query
) -> None:
    """Neither the first copy, read late, nor its acknowledgement counts after the request is dead again."""
    with store.begin() as tx:
        claimed = stored.claim(tx, TINY, 10)
    eventually(lambda: dead_letter_topic.forward_dead_letters(store, _producer(settings), SECONDS, SECONDS) == 2)
    die_again = "UPDATE dead_letters SET dead_at = now(), forwarded_at = NULL, lease_until = NULL RETURNING id"
    with store.begin() as tx:
        tx.execute(text(die_again))

    dead_letter_topic.store_received(store, reader, [_forwarded(settings, poison)[0]])
    with store.begin() as tx:
        stored.mark_forwarded(tx, claimed)

    assert query("SELECT count(*) FROM dead_letters WHERE forwarded_at IS NULL") == [(2,)]
    assert dead_letter_topic.forward_dead_letters(store, _producer(settings), SECONDS, SECONDS) == 2


def test_a_dead_letter_from_an_earlier_life_of_the_log_is_confirmed(
    poison: list[RawRecord], settings: Settings, store: Engine, reader: RecordReader, query: Query
) -> None:
    """The record's timestamp tells which life it is from; another record at the same position is not confirmed."""
    with store.begin() as tx:
        logs.adopt(tx, Topic.ISSUE_COUPON, "a later life", settings.topic_partitions, "tests")
    dead_letter_topic.forward_dead_letters(store, _producer(settings), SECONDS, SECONDS)
    (letter, _) = _forwarded(settings, poison)

    dead_letter_topic.store_received(store, reader, [letter])
    assert query("SELECT count(*), count(dlt_offset) FROM dead_letters") == [(2, 1)]

    later = [(name, b"\0" * 7 + b"\1" if name.endswith("timestamp") else value) for name, value in letter.headers]
    dead_letter_topic.store_received(
        store, reader, [letter._replace(headers=tuple(later), log_position=LogPosition(0, 2**41))]
    )
    assert query("SELECT count(*) FROM dead_letters WHERE log_id IS NULL") == [(1,)]
