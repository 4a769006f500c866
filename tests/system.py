"""The running system with a client that writes down every answer, and the proof at the end."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import httpx
from confluent_kafka import Producer
from redis import Redis
from sqlalchemy import text

from service import resources
from service.config import Settings
from service.domain.request import LogPosition
from service.store import engine
from service.stream import clients, log_reader
from service.stream.codec import encode_key
from service.stream.topics import Topic
from service.verification.history import ClientAnswer
from service.verification.verify import Check, Verifier
from stack.local import LocalStack
from tests.receiver import Receiver
from tests.waiting import Value, eventually

#: generous: recovery after a kill has to wait for session timeouts and leases
SETTLE_SECONDS = 60.0


class System:
    """What a test does to the system, and what it hears."""

    def __init__(self, stack: LocalStack, receiver: Receiver) -> None:
        self.stack = stack
        self.receiver = receiver
        self.history: list[ClientAnswer] = []
        self.settings = Settings(
            kafka_bootstrap_servers=stack.kafka_bootstrap_servers,
            database_url=stack.database_url,
            redis_url=stack.redis_url,
            celery_broker_url=stack.celery_broker_url,
            request_id_keys=stack.environment["REQUEST_ID_KEYS"],
            produce_timeout_ms=2000,
            topic_replication=int(stack.environment.get("TOPIC_REPLICATION", 1)),
            topic_min_insync_replicas=int(stack.environment.get("TOPIC_MIN_INSYNC_REPLICAS", 1)),
        )
        self.store = engine.build(stack.database_url, "tests")
        self.redis: Redis = Redis.from_url(stack.redis_url)
        self.http = httpx.Client(base_url=stack.api_url, timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.http.close()
        self.redis.close()
        self.store.dispose()

    def begin(self) -> None:
        """Every process is ready before a test begins."""
        eventually(lambda: self.http.get("/readyz").status_code == 200)
        eventually(lambda: httpx.get(f"{self.stack.issuer_url}/readyz").status_code == 200)

    def make_coupon(self, quantity: int, **fields: Any) -> int:
        """A coupon's id."""
        answer = self.http.post("/coupons", json={"name": "a coupon", "quantity": quantity, **fields})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def ask(self, coupon_id: int, user_id: int, fault: str | None = None) -> httpx.Response | None:
        """One request, its answer written down; None when there was none."""
        headers = {"Fault": fault} if fault else {}
        try:
            answer = self.http.post(f"/coupons/{coupon_id}/issuances", json={"user_id": user_id}, headers=headers)
        except httpx.HTTPError:
            self.history.append(ClientAnswer(user_id, coupon_id, "unknown"))
            return None
        self.history.append(told(user_id, coupon_id, answer))
        return answer

    def produce(self, coupon_id: int, value: bytes | None, key: bytes | None = None) -> LogPosition:
        """Writes a record straight onto the topic, as another producer would."""
        places: list[LogPosition] = []
        producer = Producer({"bootstrap.servers": self.stack.kafka_bootstrap_servers, "partitioner": "murmur2_random"})
        producer.produce(
            Topic.ISSUE_COUPON,
            value,
            key or encode_key(coupon_id),
            on_delivery=lambda _, record: places.append(LogPosition(record.partition() or 0, record.offset() or 0)),
        )
        assert producer.flush(10) == 0
        return places[0]

    def eventually(self, condition: Callable[[], Value | None]) -> Value:
        """The condition's first true value, within the time that recovery may take."""
        return eventually(condition, within_seconds=SETTLE_SECONDS)

    def press(self, coupon_id: int, user_id: int, fault: str | None = None) -> httpx.Response:
        """Asks as a user does who hears nothing: again, until there is an answer."""

        def answered() -> httpx.Response | None:
            answer = self.ask(coupon_id, user_id, fault)
            return answer if answer is not None and answer.status_code < 500 else None

        return self.eventually(answered)

    def press_many(self, coupon_id: int, users: Iterable[int], at_once: int = 16) -> list[httpx.Response]:
        """Many users who each press until there is an answer."""
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda user: self.press(coupon_id, user), users))

    def ask_many(self, coupon_id: int, users: Iterable[int], at_once: int = 16) -> list[httpx.Response | None]:
        """Many users' requests, some at a time."""
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda user: self.ask(coupon_id, user), users))

    def standing(self, request_id: str) -> dict[str, Any]:
        """What a request's own page says."""
        answer = self.http.get(f"/issuances/{request_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def final(self, request_id: str) -> dict[str, Any]:
        """The request's page once its state is final."""
        return eventually(
            lambda: page if (page := self.standing(request_id))["state"] in ("issued", "refused", "dead") else None,
            within_seconds=SETTLE_SECONDS,
        )

    def count(self, query: str, **values: object) -> int:
        """A number from the database."""
        with self.store.begin() as tx:
            return int(tx.execute(text(query), values).scalar_one())

    def settle(self, within_seconds: float = SETTLE_SECONDS) -> None:
        """Waits until the log is decided to its end and nothing waits for Celery."""
        waiting = (
            "SELECT (SELECT count(*) FROM retries) + (SELECT count(*) FROM outbox)"
            " + (SELECT count(*) FROM dead_letters WHERE forwarded_at IS NULL OR dlt_offset IS NULL)"
        )
        eventually(lambda: self._undecided() == 0 and self.count(waiting) == 0, within_seconds=within_seconds)

    def _undecided(self) -> int:
        """Records of the log beyond what has been decided."""
        consumer = clients.build_reader(self.settings)
        try:
            partitions = range(self.settings.topic_partitions)
            ends = sum(log_reader.offset_range(consumer, Topic.ISSUE_COUPON, partition)[1] for partition in partitions)
        finally:
            consumer.close()
        return ends - self.count("SELECT coalesce(sum(next_offset), 0) FROM offsets")

    def proof(self) -> list[Check]:
        """The checks of P1 to P5, by the log, the database and everything the clients were told."""
        common = resources.open_resources(self.settings, "proof")
        try:
            ids = resources.request_ids(self.settings)
            return Verifier(self.settings, common.engine, common.log_id, ids, common.reader).verify(self.history)
        finally:
            common.close()

    def prove(self) -> None:
        """P1 to P5 hold, and nothing accepted is still under way."""
        checks = self.proof()
        broken = [check for check in checks if not check.ok]
        assert not broken, broken
        assert checks[-1].numbers["in_flight"] == 0, checks[-1]


def told(user_id: int, coupon_id: int, answer: httpx.Response) -> ClientAnswer:
    """What an answer told its client."""
    if answer.status_code == 202:
        return ClientAnswer(user_id, coupon_id, "accepted", request_id=answer.json()["request_id"])
    if answer.status_code >= 500:
        return ClientAnswer(user_id, coupon_id, "unknown")
    location = answer.headers.get("location")
    return ClientAnswer(
        user_id, coupon_id, "refused", answer.json()["code"], location and location.removeprefix("/issuances/")
    )
