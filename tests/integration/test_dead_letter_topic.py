"""Dead letters: forwarded once acknowledged, confirmed by their origin, strangers' taken in, none lost."""

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import Engine, text

from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.record import RawRecord
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.store import checkpoints
from service.store import dead_letters as stored
from service.stream import clients, dead_letter_records, log_reader
from service.stream.codec import RecordReader
from service.stream.topics import Topic
from service.usecases import dead_letter_topic
from service.usecases.issue import Issuer
from tests.builders import AT_MS, raw
from tests.integration.conftest import Ask
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
    """Two records that could not be read, and are dead letters."""
    coupon = make_coupon()
    bad = [raw(ids, coupon.id, 1, offset)._replace(value=b"\x00not json") for offset in (0, 1)]
    issuer.issue([reader.decode(one) for one in bad], positions)
    return bad


def _seen(settings: Settings, letters: list[RawRecord]) -> list[RawRecord]:
    """Our letters as they stand in the dead-letter topic; that of other tests may hold more."""
    found = log_reader.read_records(settings, Topic.DEAD_LETTERS, letters[0].log_position.partition, None)
    return [one for one in found if one.value == letters[0].value][-len(letters) :]


def test_a_dead_letter_is_forwarded_as_it_was_and_confirmed(
    poison: list[RawRecord], settings: Settings, store: Engine, reader: RecordReader, ask: Ask
) -> None:
    """Step 7: same partition, key, value and headers, Spring's after them; the listener knows it for ours."""
    assert dead_letter_topic.forward_dead_letters(store, clients.build_producer(settings), SECONDS, SECONDS) == 2
    seen = _seen(settings, poison)
    dead_letter_topic.store_received(store, reader, seen)

    for before, after in zip(poison, seen, strict=True):
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
    assert ask("SELECT dlt_offset FROM dead_letters ORDER BY id") == [(one.log_position.offset,) for one in seen]
    assert dead_letter_topic.forward_dead_letters(store, clients.build_producer(settings), SECONDS, SECONDS) == 0


def test_a_plain_consumer_finds_springs_headers(poison: list[RawRecord], settings: Settings, store: Engine) -> None:
    """Step 7: what any Kafka client reads from the topic, against bytes written down by hand."""
    dead_letter_topic.forward_dead_letters(store, clients.build_producer(settings), SECONDS, SECONDS)
    letter = _seen(settings, poison)[1]

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


def test_a_second_copy_is_taken_for_the_first(
    poison: list[RawRecord], settings: Settings, store: Engine, reader: RecordReader, ask: Ask
) -> None:
    """P7: killed between the acknowledgement and its note, the same is forwarded again and changes nothing."""
    dead_letter_topic.forward_dead_letters(store, clients.build_producer(settings), SECONDS, SECONDS)
    first = _seen(settings, poison)[0]

    later, last = (first._replace(log_position=first.log_position._replace(offset=offset)) for offset in (2**40, 2**41))
    for together in ([first, later], [last]):
        dead_letter_topic.store_received(store, reader, together)

    assert ask("SELECT count(*) FROM dead_letters") == [(2,)]
    assert ask("SELECT dlt_offset FROM dead_letters WHERE dlt_offset IS NOT NULL") == [(first.log_position.offset,)]


def test_what_the_broker_did_not_take_waits(
    poison: list[RawRecord], settings: Settings, store: Engine, ask: Ask
) -> None:
    """Step 7: nothing waits for the topic, and nothing is lost while it is away."""
    away = settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:9", "produce_timeout_ms": 100})

    assert dead_letter_topic.forward_dead_letters(store, clients.build_producer(away), TINY, timeout_seconds=0.1) == 0

    assert ask("SELECT count(*) FROM dead_letters WHERE forwarded_at IS NULL") == [(len(poison),)]
    assert (
        eventually(
            lambda: dead_letter_topic.forward_dead_letters(store, clients.build_producer(settings), SECONDS, SECONDS)
        )
        == 2
    )
    with store.begin() as tx:
        assert not stored.has_overdue(tx, grace_seconds=0)


@pytest.mark.usefixtures("poison")
def test_a_strangers_dead_letter_is_stored_once(store: Engine, reader: RecordReader, ask: Ask) -> None:
    """Step 7: a letter of another producer, or with an origin that is not ours, is kept for the operators."""
    letter = RawRecord(LogPosition(0, 0), None, b"\xff", (("kafka_dlt-exception-message", b"no \x00 reason"),), AT_MS)

    for together in ([letter, letter], [letter]):
        dead_letter_topic.store_received(store, reader, together)

    (row,) = ask("SELECT value, error_message, partition, dlt_offset FROM dead_letters WHERE log_id IS NULL")
    assert row == (b"\xff", "no \ufffd reason", None, 0)


def test_a_dead_letter_topic_that_was_made_again_is_read_from_its_beginning(
    poison: list[RawRecord], settings: Settings, store: Engine, reader: RecordReader, ask: Ask
) -> None:
    """Step 4: a topic deleted and made again is another log; its offsets begin anew and stop nobody."""
    dead_letter_topic.forward_dead_letters(store, clients.build_producer(settings), SECONDS, SECONDS)
    first, second = _seen(settings, poison)
    dead_letter_topic.store_received(store, reader, [first])

    dead_letter_topic.store_received(store, reader, [second._replace(log_position=first.log_position)])

    assert ask("SELECT count(*) FROM dead_letters WHERE dlt_offset IS NULL") == [(0,)]


def test_who_dies_again_is_forwarded_again(
    poison: list[RawRecord], settings: Settings, store: Engine, reader: RecordReader, ask: Ask
) -> None:
    """Step 7: neither the first copy, heard late, nor its acknowledgement stands for the second death."""
    with store.begin() as tx:
        claimed = stored.claim(tx, TINY, 10)
    eventually(
        lambda: dead_letter_topic.forward_dead_letters(store, clients.build_producer(settings), SECONDS, SECONDS) == 2
    )
    ask_again = "UPDATE dead_letters SET dead_at = now(), forwarded_at = NULL, lease_until = NULL RETURNING id"
    with store.begin() as tx:
        tx.execute(text(ask_again))

    dead_letter_topic.store_received(store, reader, [_seen(settings, poison)[0]])
    with store.begin() as tx:
        stored.mark_forwarded(tx, claimed)

    assert ask("SELECT count(*) FROM dead_letters WHERE forwarded_at IS NULL") == [(2,)]
    assert dead_letter_topic.forward_dead_letters(store, clients.build_producer(settings), SECONDS, SECONDS) == 2


def test_a_letter_from_an_earlier_life_of_the_log_is_ours_too(
    poison: list[RawRecord], settings: Settings, store: Engine, reader: RecordReader, ask: Ask
) -> None:
    """Step 7: the record's own time says which life it is from; another record at the same place is not confirmed."""
    with store.begin() as tx:
        checkpoints.ensure_log(tx, Topic.ISSUE_COUPON, "a later life")
    dead_letter_topic.forward_dead_letters(store, clients.build_producer(settings), SECONDS, SECONDS)
    (letter, _) = _seen(settings, poison)

    dead_letter_topic.store_received(store, reader, [letter])
    assert ask("SELECT count(*), count(dlt_offset) FROM dead_letters") == [(2, 1)]

    later = [(name, b"\0" * 7 + b"\1" if name.endswith("timestamp") else value) for name, value in letter.headers]
    dead_letter_topic.store_received(
        store, reader, [letter._replace(headers=tuple(later), log_position=LogPosition(0, 2**41))]
    )
    assert ask("SELECT count(*) FROM dead_letters WHERE log_id IS NULL") == [(1,)]
