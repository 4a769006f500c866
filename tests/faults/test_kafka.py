"""Kafka is bounced, killed, frozen and given what cannot be read."""

import time

from confluent_kafka.admin import AdminClient

from service.stream import topics
from service.stream.topics import Topic
from tests.faults.hands import Hands
from tests.faults.rows import row
from tests.faults.scene import Scene

_LETTERS = "SELECT count(*) FROM dead_letters"
_NOT_FORWARDED = f"{_LETTERS} WHERE forwarded_at IS NULL"
#: not JSON, not an object, not an id, another schema, a NUL, a lone surrogate, almost a megabyte
_UNREADABLE = (
    None,
    b"",
    b"{",
    b"[]",
    b'{"userId":"seven","couponId":1,"requestTimeMillis":0}',
    b'{"version":99,"user":{"id":7}}',
    b'{"userId":\x007}',
    b'{"userId":"\\ud800"}',
    b"x" * 900_000,
)


@row(12, "log", "records that cannot be read, amidst good ones", seconds=15)
def test_poison(scene: Scene, hands: Hands) -> None:
    """Each is a dead letter at once; its neighbours are issued in their order."""
    coupon = scene.system.make_coupon(100)
    before = scene.system.count(_LETTERS)
    with scene.users():
        receipts = []
        for user, value in enumerate(_UNREADABLE, start=1):
            scene.system.produce(coupon, value)
            receipts.append(scene.receipt(coupon, user))
        made = scene.system.eventually(lambda: scene.system.count(_LETTERS) - before >= len(_UNREADABLE))
        hands.bitten(made, "dead letters were made")
    sequences = [scene.system.final(receipt)["sequence"] for receipt in receipts]
    scene.demand(sequences == list(range(1, len(_UNREADABLE) + 1)), sequences)


@row(13, "dead letters", "their topic is deleted and made anew", seconds=40)
def test_dead_letters_topic_is_absent(scene: Scene, hands: Hands) -> None:
    """Nothing waits for the topic; once it is back every dead letter is forwarded and confirmed."""
    coupon = scene.system.make_coupon(10)
    with scene.users():
        admin = AdminClient({"bootstrap.servers": scene.stack.kafka_bootstrap_servers})
        admin.delete_topics([Topic.DEAD_LETTERS.value])[Topic.DEAD_LETTERS.value].result(10)
        scene.system.eventually(lambda: Topic.DEAD_LETTERS not in admin.list_topics(timeout=5).topics)
        scene.system.produce(coupon, b"{")
        scene.system.eventually(lambda: scene.system.count(_NOT_FORWARDED))
        hands.bitten(scene.system.count(_NOT_FORWARDED), "a dead letter waits")
        scene.demand(scene.system.final(scene.receipt(coupon, 1))["state"] == "issued", "the partition goes on")
        topics.ensure_topics(scene.system.settings)
    scene.system.eventually(lambda: not scene.system.count(_NOT_FORWARDED))


@row(14, "Kafka", "clean bounce ×5", seconds=60, within=240)
def test_clean_bounces(scene: Scene, hands: Hands) -> None:
    """Stopped in order and started five times: users press again, and nobody else is started again."""
    with scene.users():
        for _ in range(5):
            since = time.monotonic()
            hands.stop("kafka")
            scene.turns_red("api", "issuer")
            hands.start("kafka")
            scene.recovers(since)


@row(15, "Kafka", "hard bounce ×5", seconds=60, within=240)
def test_hard_bounces(scene: Scene, hands: Hands) -> None:
    """Killed with SIGKILL and started five times: what was acknowledged is there, and everybody goes on by himself."""
    with scene.users():
        for _ in range(5):
            since = time.monotonic()
            with hands.away("kafka"):
                scene.turns_red("api", "issuer")
            scene.recovers(since)


@row(16, "Kafka", "SIGSTOP for longer than the produce timeout", seconds=20)
def test_frozen(scene: Scene, hands: Hands) -> None:
    """503 within the deadline; what arrives late after all is the same request as its repeat."""
    coupon = scene.system.make_coupon(10)
    with scene.users():
        with hands.frozen("kafka"):
            answer = scene.system.ask(coupon, 1)
            scene.demand(answer is not None and answer.status_code == 503, answer)
            scene.turns_red("api")
            scene.users_hear_nothing()
        scene.recovers(since=time.monotonic())
        scene.demand(scene.system.final(scene.receipt(coupon, 1))["state"] == "issued", "the repeat is issued")
    rows = scene.system.count("SELECT count(*) FROM requests WHERE coupon_id = :id", id=coupon)
    scene.demand(rows == 1, f"{rows} rows of one request")
