"""The running system as tests use it: a recording client, reads of the database, and the verification."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Self

import httpx
from confluent_kafka import Producer
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text

from service import resources
from service.config import Settings
from service.domain.request import FINAL_STATES, LogPosition
from service.gate.client import build_client
from service.store import engine
from service.stream import clients, log_reader
from service.stream.codec import encode_key
from service.stream.topics import Topic
from service.verification.history import ClientAnswer
from service.verification.verify import Check
from stack.local import LocalStack
from stack.settings import KAFKA_SECURITY
from testkit import credentials
from testkit.issuance_client import IssuanceResponse
from testkit.webhook_receiver import WebhookReceiver
from tests.waiting import Value, eventually

#: generous: recovery after a kill waits for session timeouts and leases
RECOVERY_SECONDS = 60.0
_UNFINISHED_WORK = (
    "SELECT (SELECT count(*) FROM retries) + (SELECT count(*) FROM outbox)"
    " + (SELECT count(*) FROM dead_letters WHERE forwarded_at IS NULL OR dlt_offset IS NULL)"
)


class System:
    """The running processes with clients for each part; `history` holds every answer that a client received."""

    def __init__(self, stack: LocalStack, receiver: WebhookReceiver) -> None:
        self.stack = stack
        self.receiver = receiver
        self.history: list[ClientAnswer] = []
        security: dict[str, Any] = {
            name.lower(): value for name, value in stack.environment.items() if name in KAFKA_SECURITY
        }
        self.settings = Settings(
            kafka_bootstrap_servers=stack.kafka_bootstrap_servers,
            database_url=stack.database_url,
            database_pooler=stack.environment.get("DATABASE_POOLER") == "true",
            redis_url=stack.redis_url,
            celery_broker_url=stack.celery_broker_url,
            request_id_keys=stack.environment["REQUEST_ID_KEYS"],
            auth="off",
            produce_timeout_ms=2000,
            topic_replication=int(stack.environment.get("TOPIC_REPLICATION", 1)),
            topic_min_insync_replicas=int(stack.environment.get("TOPIC_MIN_INSYNC_REPLICAS", 1)),
            **security,
        )
        pooler = self.settings.database_pooler
        self.store = engine.build(stack.database_url, "tests", pooler=pooler, prepare=not pooler)
        self.redis = build_client(stack.redis_url)
        self.redis.set_retry(Retry(NoBackoff(), 3))  # a server that a test has killed ended the connection
        self.credentials = credentials.create(stack.environment)
        self.http = httpx.Client(base_url=stack.api_url, timeout=10, auth=self.credentials)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.http.close()
        self.redis.close()
        self.store.dispose()

    def wait_until_ready(self) -> None:
        """Wait until the API and the issuer are ready."""
        eventually(lambda: self.http.get("/readyz").status_code == 200)
        eventually(lambda: self.http.get("/coupons").status_code == 200)  # the API knows the keys
        eventually(lambda: httpx.get(f"{self.stack.issuer_url}/readyz").status_code == 200)

    def make_coupon(self, quantity: int, **fields: Any) -> int:
        """Create a coupon; return its id."""
        response = self.http.post("/coupons", json={"name": "a coupon", "quantity": quantity, **fields})
        assert response.status_code == 201, response.text
        return int(response.json()["id"])

    def request_issuance(self, coupon_id: int, user_id: int, fault: str | None = None) -> httpx.Response | None:
        """Send one issuance request and record its answer; None if there was no response."""
        headers = {"Fault": fault} if fault else {}
        try:
            response = self.http.post(f"/coupons/{coupon_id}/issuances", json={"user_id": user_id}, headers=headers)
        except httpx.HTTPError:
            self.history.append(ClientAnswer(user_id, coupon_id, "unknown"))
            return None
        self.history.append(client_answer(user_id, coupon_id, response))
        return response

    def record_unknown(self, coupon_id: int, *users: int) -> None:
        """Record that requests of these users were sent whose answers are not looked at."""
        self.history.extend(ClientAnswer(user, coupon_id, "unknown") for user in users)

    def request_many(self, coupon_id: int, users: Iterable[int], at_once: int = 16) -> list[httpx.Response | None]:
        """Send one issuance request for each user, `at_once` in parallel."""
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda user: self.request_issuance(coupon_id, user), users))

    def request_until_answered(self, coupon_id: int, user_id: int, fault: str | None = None) -> httpx.Response:
        """Repeat an issuance request until its outcome is known, as a user would."""

        def answered() -> httpx.Response | None:
            response = self.request_issuance(coupon_id, user_id, fault)
            if response is None or response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                return None
            return response if response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR else None

        return self.eventually(answered)

    def request_many_until_answered(
        self, coupon_id: int, users: Iterable[int], at_once: int = 16
    ) -> list[httpx.Response]:
        """Repeat an issuance request for each user until its outcome is known, `at_once` in parallel."""
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda user: self.request_until_answered(coupon_id, user), users))

    def produce(self, coupon_id: int, value: bytes | None, key: bytes | None = None) -> LogPosition:
        """Append a record to the topic as another producer would."""
        positions: list[LogPosition] = []
        producer = Producer({"bootstrap.servers": self.stack.kafka_bootstrap_servers, "partitioner": "murmur2_random"})
        producer.produce(
            Topic.ISSUE_COUPON,
            value,
            key or encode_key(coupon_id),
            on_delivery=lambda _, record: positions.append(LogPosition(record.partition() or 0, record.offset() or 0)),
        )
        assert producer.flush(10) == 0
        return positions[0]

    def eventually(self, condition: Callable[[], Value | None]) -> Value:
        """Return the condition's first true value, within the time that recovery may take."""
        return eventually(condition, within_seconds=RECOVERY_SECONDS)

    def read_status(self, request_id: str) -> dict[str, Any]:
        """Return a request's status from the API."""
        response = self.http.get(f"/issuances/{request_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def wait_until_final(self, request_id: str) -> dict[str, Any]:
        """Wait until a request's state is final; return its status."""
        return self.eventually(
            lambda: status if (status := self.read_status(request_id))["state"] in FINAL_STATES else None
        )

    def count(self, query: str, **values: object) -> int:
        """Return a number from the database."""
        with self.store.begin() as tx:
            return int(tx.execute(text(query), values).scalar_one())

    def wait_until_idle(self, within_seconds: float = RECOVERY_SECONDS) -> None:
        """Wait until every record is decided and Celery has no unfinished work."""
        eventually(lambda: self._undecided() == 0 and self.count(_UNFINISHED_WORK) == 0, within_seconds=within_seconds)

    def _undecided(self) -> int:
        """Count records at or after the checkpoints."""
        consumer = clients.build_reader(self.settings)
        try:
            partitions = range(self.settings.topic_partitions)
            ends = sum(log_reader.offset_range(consumer, Topic.ISSUE_COUPON, partition)[1] for partition in partitions)
        finally:
            consumer.close()
        return ends - self.count("SELECT coalesce(sum(next_offset), 0) FROM offsets WHERE NOT closed")

    def verify(self) -> list[Check]:
        """Verify P1 to P5 against the log, the database and every recorded answer; return the checks."""
        common = resources.open_resources(self.settings, "proof")
        try:
            return resources.verifier(common).verify(self.history)
        finally:
            common.close()

    def assert_promises(self) -> None:
        """Assert that P1 to P5 hold and that no accepted request is in flight."""
        checks = self.verify()
        failed = [check for check in checks if not check.ok]
        assert not failed, failed
        assert checks[-1].numbers["in_flight"] == 0, checks[-1]


def client_answer(user_id: int, coupon_id: int, response: httpx.Response) -> ClientAnswer:
    """Return what a response means to its client; fails if the response breaks the API's contract."""
    location = response.headers.get("location")
    answer = IssuanceResponse(response.status_code, location, response.content).answer(user_id, coupon_id)
    if response.status_code == HTTPStatus.ACCEPTED:
        assert (answer.outcome, answer.request_id) == ("accepted", response.json()["request_id"]), response.text
    elif response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        assert answer.outcome == "refused", response.text
    return answer
