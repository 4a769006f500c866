"""The proof: it is green for what the service does, whatever happened, and says so in numbers."""

from collections.abc import Callable

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import Engine

from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.request_id import RequestIds
from service.store import checkpoints
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.stream.topics import Topic
from service.usecases.issue import Issuer
from service.usecases.recover import Recoverer
from service.verification.history import ClientAnswer
from service.verification.verify import Check, Verifier
from tests.builders import PARTITIONS, insert_request
from tests.integration.conftest import Ask
from tests.log import Log

MakeCoupon = Callable[..., Coupon]


def _broken(checks: list[Check]) -> list[Check]:
    return [check for check in checks if not check.ok]


def _numbers(checks: list[Check], what: str) -> dict[str, int]:
    return next(check.numbers for check in checks if check.what == what)


def test_an_empty_house_is_in_order(verifier: Verifier, real_log: Log) -> None:
    """Step 9: nothing asked, nothing owed."""
    assert real_log.undecided() == []

    checks = verifier.verify([])

    assert _broken(checks) == []
    assert [check.promise for check in checks] == ["P1", "P2", "P3", "P4", "P4", "P5", "P5"]


def test_whatever_may_happen_is_in_order(
    verifier: Verifier, real_log: Log, recoverer: Recoverer, log_id: int, make_coupon: MakeCoupon, ask: Ask
) -> None:
    """Step 9: redeliveries, poison, strangers, retries, standby, the dead and the undecided break no promise."""
    coupon = make_coupon(quantity=3)
    names = [real_log.ask(coupon.id, user, fault="22012 9" if user == 1 else None) for user in range(1, 7)]
    real_log.append(coupon.id, 2, names[1])
    real_log.append(coupon.id, 2, request_id=None)
    real_log.append_raw(b"1", b"not json", [])
    real_log.append(999, 1, request_id=None)
    held = real_log.issue()
    for attempts_made in (1, 2):
        recoverer.retry(log_id, held, attempts_made)
    undecided = real_log.ask(coupon.id, 1)
    history = [
        *(ClientAnswer(user, coupon.id, "accepted", request_id=names[user - 1]) for user in range(1, 7)),
        ClientAnswer(2, coupon.id, "refused", "duplicate", names[1]),
        ClientAnswer(3, coupon.id, "refused", "sold_out"),
        ClientAnswer(1, coupon.id, "accepted", request_id=undecided),
        ClientAnswer(9, coupon.id, "unknown"),
    ]

    checks = verifier.verify(history)

    assert _broken(checks) == []
    assert ask("SELECT state, count(*) FROM requests GROUP BY 1 ORDER BY 1") == [
        ("dead", 1),
        ("issued", 3),
        ("refused", 4),
    ]
    found = _numbers(checks, "nothing lost in the log")
    assert (found["records"], found["redelivered"], found["undecided"]) == (11, 1, 1)
    told = _numbers(checks, "the answers hold")
    assert (told["accepted"], told["issued"], told["refused"], told["dead"]) == (7, 3, 2, 1)
    assert (told["in_flight"], told["unknown"]) == (1, 1)


def test_a_repeat_whose_first_was_never_decided_is_no_loss(
    verifier: Verifier, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """Step 3: a request appended twice under one id is one request, decided at its first place."""
    coupon = make_coupon(quantity=9)
    name = real_log.ask(coupon.id, 7)
    real_log.append(coupon.id, 7, name)
    real_log.issue()
    real_log.append(coupon.id, 7, name)
    real_log.issue()

    checks = verifier.verify([ClientAnswer(7, coupon.id, "accepted", request_id=name)])

    assert _broken(checks) == []
    assert _numbers(checks, "nothing lost in the log")["redelivered"] == 2


def test_a_rotated_key_breaks_no_proof(
    settings: Settings, store: Engine, log_id: int, ids: RequestIds, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """Step 3: old keys stay valid on rotation, for the ids that were derived from strangers' records too."""
    coupon = make_coupon()
    real_log.ask(coupon.id, 1)
    real_log.append(coupon.id, 2, request_id=None)
    real_log.issue()
    rotated = RequestIds([b"a key that came later", *settings.mac_keys])
    reader = RecordReader(rotated, settings.topic_partitions, faults=False)

    checks = Verifier(settings, store, log_id, rotated, reader).verify()

    assert ids.decode("") is None
    assert _broken(checks) == []


@pytest.mark.usefixtures("real_log")
def test_without_a_history_the_answers_are_not_judged(verifier: Verifier) -> None:
    """Step 9: what nobody wrote down cannot be proved, and is not claimed."""
    assert "the answers hold" not in [check.what for check in verifier.verify()]


def test_the_proof_of_one_coupon_judges_its_own_answers(
    verifier: Verifier, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """Step 9: of a history of all coupons, those of this one; another's that are undecided or unasked are not its."""
    coupons = [make_coupon(), make_coupon()]
    mine = real_log.ask(coupons[0].id, 1)
    real_log.ask(coupons[1].id, 2)
    real_log.issue()
    undecided = real_log.ask(coupons[1].id, 3)
    history = [
        ClientAnswer(1, coupons[0].id, "accepted", request_id=mine),
        ClientAnswer(3, coupons[1].id, "accepted", request_id=undecided),
    ]

    first, second = (_numbers(verifier.verify(history, one.id), "the answers hold") for one in coupons)

    assert (first["accepted"], first["issued"], first["lost"], first["phantom"]) == (1, 1, 0, 0)
    assert (second["accepted"], second["in_flight"], second["lost"], second["phantom"]) == (1, 1, 0, 1)


def test_the_proof_changes_nothing(
    verifier: Verifier, real_log: Log, make_coupon: MakeCoupon, issuer: Issuer, ask: Ask
) -> None:
    """Step 9: the same proof twice, and the issuer goes on where it was."""
    coupon = make_coupon()
    real_log.ask(coupon.id, 1)
    before = ask("SELECT * FROM offsets ORDER BY partition")

    assert verifier.verify([]) is not None
    assert ask("SELECT * FROM offsets ORDER BY partition") == before
    assert issuer.issue(real_log.undecided(), real_log.positions).held == []


@pytest.fixture
def old_life(store: Engine) -> int:
    """The number of a topic of the same name that was deleted."""
    with store.begin() as tx:
        return checkpoints.ensure_log(tx, Topic.ISSUE_COUPON, "the id of a life before this one")


@pytest.mark.usefixtures("old_life")
def test_a_topic_made_again_in_mid_sale_breaks_no_proof(
    old_life: int, verifier: Verifier, real_log: Log, make_coupon: MakeCoupon, store: Engine, ask: Ask
) -> None:
    """Step 4: what was issued in an earlier life of the topic counts on, for quantity, users and sequences."""
    coupon = make_coupon(quantity=2)
    with store.begin() as tx:
        insert_request(tx, 9, coupon_id=coupon.id, user_id=1, sequence=1, log_id=old_life)
    for user in (1, 2, 3):
        real_log.ask(coupon.id, user)
    real_log.issue()
    assert ask("SELECT code, sequence FROM requests WHERE log_id <> :old ORDER BY user_id", old=old_life) == [
        ("duplicate", None),
        (None, 2),
        ("sold_out", None),
    ]

    assert _broken(verifier.verify()) == []


def test_records_that_were_archived_are_not_missed(
    settings: Settings, verifier: Verifier, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """Step 9: rows outlive the log's head, and are counted as what they are."""
    coupon = make_coupon()
    for user in (1, 2, 3):
        real_log.ask(coupon.id, user)
    real_log.issue()
    partition = partition_of(coupon.id, PARTITIONS)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    cut = TopicPartition(Topic.ISSUE_COUPON, partition, real_log.positions[partition] - 1)
    admin.delete_records([cut])[cut].result(10)

    checks = verifier.verify()

    assert _broken(checks) == []
    found = _numbers(checks, "nothing lost in the log")
    assert (found["records"], found["archived"], found["phantom"]) == (1, 2, 0)
