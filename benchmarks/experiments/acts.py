"""What several experiments do: hold a consumer back, start a comparator, press a button many times."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from redis import Redis

from benchmarks import decided
from benchmarks.comparators import as_is
from benchmarks.ground import Ground
from benchmarks.limits.log import make_topic
from benchmarks.load.plan import Plan, Pressed
from benchmarks.load.pressing import press
from benchmarks.records import Asked, append, minted, shuffled
from service.store import checkpoints
from service.stream.topics import Topic

TO_BE_TOPIC = "TO_BE"
#: of a coupon that does not run out
WITHOUT_END = 10_000_000
#: the beginning of a press, which does not count
WARM_SECONDS = 0.5
#: more requests than any server here answers in a second: the generator prepares so many
_MOST_PER_SECOND = 40_000


@contextmanager
def held_back(ground: Ground, part: str) -> Iterator[None]:
    """Keeps a consumer from running while the block fills its topic; it goes on when the block ends."""
    ground.stack.freeze(part)
    try:
        yield
    finally:
        ground.stack.thaw(part)


def drain(ground: Ground, part: str, coupon_id: int, asked: Iterable[Asked], topic: str = Topic.ISSUE_COUPON) -> None:
    """Fills the topic behind a consumer's back, and waits until it has issued all of it."""
    wanted = list(asked)
    with held_back(ground, part):
        append(ground.stack.kafka_bootstrap_servers, wanted, topic)
    decided.await_issued(ground, coupon_id, len(wanted))


def warm(ground: Ground, part: str, requests: int = 3_000, topic: str = Topic.ISSUE_COUPON) -> None:
    """Lets a consumer issue some, so that no round pays for what happens once; then takes them away."""
    coupon_id = ground.coupon(requests)
    drain(ground, part, coupon_id, minted(coupon_id, shuffled(requests)), topic)
    ground.clear()


def start_to_be(ground: Ground, topic: str = TO_BE_TOPIC) -> str:
    """Starts the report's consumer, on a topic of its own unless told otherwise; its name as a part."""
    if topic == TO_BE_TOPIC:
        make_topic(ground, topic)
    ground.run("to_be", "benchmarks.comparators.to_be", topic, str(new_log(ground, "to_be")), ready="assigned")
    return "to_be"


def start_as_is(ground: Ground, period_seconds: float, chunk: int) -> int:
    """Starts the replaced system; the port of its API."""
    words = (f"{period_seconds}", f"{chunk}", str(new_log(ground, "as_is")))
    ground.run("as_is", "benchmarks.comparators.as_is_scheduler", *words, ready="waiting")
    return ground.api("as_is_api", "benchmarks.comparators.as_is_api")


def new_log(ground: Ground, name: str) -> int:
    """A number under which a comparator's rows stand in the table."""
    with ground.store.begin() as tx:
        return checkpoints.ensure_log(tx, name, name)


def queue_for(ground: Ground, coupon_id: int, quantity: int) -> None:
    """Lets the replaced system know a coupon."""
    with Redis.from_url(ground.stack.redis_url) as redis:
        redis.set(as_is.quantity_key(coupon_id), quantity)
        redis.sadd(as_is.COUPONS, coupon_id)


def until_phase(period_seconds: float, number: int, of: int) -> None:
    """Sleeps until a moment of the scheduler's period; rounds are spread over it evenly, so that luck plays no part."""
    wanted = period_seconds * (number + 0.5) / of
    time.sleep((wanted - time.time()) % period_seconds)


def path(coupon_id: int) -> str:
    """Where a coupon is asked for."""
    return f"/coupons/{coupon_id}/issuances"


def burst(ground: Ground, port: int, coupon_id: int, requests: int, connections: int = 100) -> Pressed:
    """As many presses as the coupon has, as fast as so many connections let them; waits until all are issued."""
    pressed = press(Plan(port, [path(coupon_id)], 1, requests, connections))
    decided.await_issued(ground, coupon_id, requests)
    return pressed


def refuses_like_ours(ground: Ground, port: int) -> None:
    """Raises AssertionError unless the replaced system refuses repeats and latecomers, and issues all others."""
    coupon_id = ground.coupon(150)
    queue_for(ground, coupon_id, 150)
    for first_user, presses, expected in ((1, 100, 202), (1, 100, 409), (101, 50, 202), (151, 50, 409)):
        press(Plan(port, [path(coupon_id)], first_user, presses), expected)
    decided.await_issued(ground, coupon_id, 150)


def closed(port: int, coupon_id: int, seconds: float, connections: int = 256) -> Pressed:
    """What a server takes when every connection sends again upon an answer."""
    most = round(seconds * _MOST_PER_SECOND)
    return press(Plan(port, [path(coupon_id)], 1, most, connections=connections, seconds=seconds))


def accepted(ground: Ground, port: int, seconds: float, connections: int = 256) -> Pressed:
    """What an API takes, of a coupon without end, while nobody issues; all that it took is issued afterwards."""
    coupon_id = ground.coupon(WITHOUT_END)
    with held_back(ground, "issuer-0"):
        pressed = closed(port, coupon_id, seconds, connections)
    decided.await_issued(ground, coupon_id, len(pressed.due))
    return pressed
