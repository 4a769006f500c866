"""The proof is green for everything that the service does, and reports it in numbers."""

from collections.abc import Callable

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import Engine

from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.request_id import RequestIds
from service.store import logs
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.stream.topics import Topic
from service.usecases.issue import Issuer
from service.usecases.recover import Recoverer
from service.verification.history import ClientAnswer
from service.verification.verify import Check, Verifier
from tests.builders import PARTITIONS, insert_request
from tests.integration.conftest import Query
from tests.log import Log

MakeCoupon = Callable[..., Coupon]


def _violated(checks: list[Check]) -> list[Check]:
    """Return the checks that are not ok."""
    return [check for check in checks if not check.ok]


def _numbers(checks: list[Check], check_name: str) -> dict[str, int]:
    """Return the numbers of the check with this name."""
    return next(check.numbers for check in checks if check.what == check_name)


def test_the_proof_of_an_empty_system_is_green(verifier: Verifier, real_log: Log) -> None:
    """Without requests no promise is violated."""
    assert real_log.undecided() == []

    checks = verifier.verify([])

    assert _violated(checks) == []
    assert [check.promise for check in checks] == ["P1", "P2", "P3", "P3", "P4", "P4", "P5", "P5"]


def test_the_proof_of_every_kind_of_request_is_green(
    verifier: Verifier, real_log: Log, recoverer: Recoverer, log_id: int, make_coupon: MakeCoupon, query: Query
) -> None:
    """P1 to P5 hold with redeliveries, poison, foreign records, retries, standby, dead and undecided requests."""
    coupon = make_coupon(quantity=3)
    request_ids = [
        real_log.append_request(coupon.id, user, fault="22012 9" if user == 1 else None) for user in range(1, 7)
    ]
    real_log.append(coupon.id, 2, request_ids[1])
    real_log.append(coupon.id, 2, request_id=None)
    real_log.append_raw(b"1", b"not json", [])
    real_log.append(999, 1, request_id=None)
    held = real_log.issue()
    for attempts_made in (1, 2):
        recoverer.retry(log_id, held, attempts_made)
    undecided = real_log.append_request(coupon.id, 1)
    history = [
        *(ClientAnswer(user, coupon.id, "accepted", request_id=request_ids[user - 1]) for user in range(1, 7)),
        ClientAnswer(2, coupon.id, "refused", "duplicate", request_ids[1]),
        ClientAnswer(3, coupon.id, "refused", "sold_out"),
        ClientAnswer(1, coupon.id, "accepted", request_id=undecided),
        ClientAnswer(9, coupon.id, "unknown"),
    ]

    checks = verifier.verify(history)

    assert _violated(checks) == []
    assert query("SELECT state, count(*) FROM requests GROUP BY 1 ORDER BY 1") == [
        ("dead", 1),
        ("issued", 3),
        ("refused", 4),
    ]
    log_numbers = _numbers(checks, "nothing lost in the log")
    assert (log_numbers["records"], log_numbers["redelivered"], log_numbers["undecided"]) == (11, 1, 1)
    answers = _numbers(checks, "the answers hold")
    assert (answers["accepted"], answers["issued"], answers["refused"], answers["dead"]) == (7, 3, 2, 1)
    assert (answers["in_flight"], answers["unknown"]) == (1, 1)


def test_a_request_that_was_appended_three_times_is_not_lost(
    verifier: Verifier, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """P4: records with one request id are one request, decided at the first of them."""
    coupon = make_coupon(quantity=9)
    request_id = real_log.append_request(coupon.id, 7)
    real_log.append(coupon.id, 7, request_id)
    real_log.issue()
    real_log.append(coupon.id, 7, request_id)
    real_log.issue()

    checks = verifier.verify([ClientAnswer(7, coupon.id, "accepted", request_id=request_id)])

    assert _violated(checks) == []
    assert _numbers(checks, "nothing lost in the log")["redelivered"] == 2


def test_the_proof_is_green_after_a_key_rotation(
    settings: Settings, store: Engine, ids: RequestIds, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """Old keys stay valid, also for the ids that were derived from foreign records."""
    coupon = make_coupon()
    real_log.append_request(coupon.id, 1)
    real_log.append(coupon.id, 2, request_id=None)
    real_log.issue()
    rotated = RequestIds([b"a key that came later", *settings.mac_keys])
    rotated_reader = RecordReader(rotated, settings.topic_partitions, faults=False)

    checks = Verifier(settings, store, rotated, rotated_reader).verify()

    assert ids.decode("") is None
    assert _violated(checks) == []


@pytest.mark.usefixtures("real_log")
def test_without_a_history_the_answers_are_not_checked(verifier: Verifier) -> None:
    """Client answers that were not recorded cannot be proved."""
    assert "the answers hold" not in [check.what for check in verifier.verify()]


def test_the_proof_of_one_coupon_checks_its_own_answers(
    verifier: Verifier, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """P5: of a history of all coupons only the answers about this coupon count."""
    coupons = [make_coupon(), make_coupon()]
    request_id = real_log.append_request(coupons[0].id, 1)
    real_log.append_request(coupons[1].id, 2)
    real_log.issue()
    undecided = real_log.append_request(coupons[1].id, 3)
    history = [
        ClientAnswer(1, coupons[0].id, "accepted", request_id=request_id),
        ClientAnswer(3, coupons[1].id, "accepted", request_id=undecided),
    ]

    first, second = (_numbers(verifier.verify(history, coupon.id), "the answers hold") for coupon in coupons)

    assert (first["accepted"], first["issued"], first["lost"], first["phantom"]) == (1, 1, 0, 0)
    assert (second["accepted"], second["in_flight"], second["lost"], second["phantom"]) == (1, 1, 0, 1)


def test_the_proof_changes_nothing(
    verifier: Verifier, real_log: Log, make_coupon: MakeCoupon, issuer: Issuer, query: Query
) -> None:
    """The proof leaves the checkpoints as they are, and the issuer continues."""
    coupon = make_coupon()
    real_log.append_request(coupon.id, 1)
    before = query("SELECT * FROM offsets ORDER BY partition")

    assert verifier.verify([]) is not None
    assert query("SELECT * FROM offsets ORDER BY partition") == before
    assert issuer.issue(real_log.undecided(), real_log.positions).held == []


@pytest.fixture
def earlier_log_id(store: Engine) -> int:
    """The log_id of a deleted topic with the same name."""
    with store.begin() as tx:
        return logs.ensure_first(tx, Topic.ISSUE_COUPON, "the id of the deleted topic", "tests").id


@pytest.mark.usefixtures("earlier_log_id")
def test_the_proof_is_green_after_the_topic_was_created_again(
    earlier_log_id: int, verifier: Verifier, real_log: Log, make_coupon: MakeCoupon, store: Engine, query: Query
) -> None:
    """P1, P2, P3: issuances of the earlier topic still count for quantity, users and sequences."""
    coupon = make_coupon(quantity=2)
    with store.begin() as tx:
        insert_request(tx, 9, coupon_id=coupon.id, user_id=1, sequence=1, log_id=earlier_log_id)
    for user in (1, 2, 3):
        real_log.append_request(coupon.id, user)
    real_log.issue()
    assert query("SELECT code, sequence FROM requests WHERE log_id <> :old ORDER BY user_id", old=earlier_log_id) == [
        ("duplicate", None),
        (None, 2),
        ("sold_out", None),
    ]

    assert _violated(verifier.verify()) == []


def test_deleted_records_are_not_counted_as_lost(
    settings: Settings, verifier: Verifier, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """P4: rows whose records were deleted from the topic's head are counted as archived."""
    coupon = make_coupon()
    for user in (1, 2, 3):
        real_log.append_request(coupon.id, user)
    real_log.issue()
    partition = partition_of(coupon.id, PARTITIONS)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    head = TopicPartition(Topic.ISSUE_COUPON, partition, real_log.positions[partition] - 1)
    admin.delete_records([head])[head].result(10)

    checks = verifier.verify()

    assert _violated(checks) == []
    log_numbers = _numbers(checks, "nothing lost in the log")
    assert (log_numbers["records"], log_numbers["archived"], log_numbers["phantom"]) == (1, 2, 0)
