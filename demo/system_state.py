"""State of the system, read only: rows of the database, the end of the log, and status responses of the API."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple, Self

import httpx
import msgspec
import psycopg
from confluent_kafka import Consumer, TopicPartition
from psycopg.rows import class_row

from demo.progress import repeat_every
from service.stream.topics import Topic

KAFKA_TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.1
#: a held seat, and a request on standby behind it, lasts at least one second
STATUS_POLL_SECONDS = 0.1
STATUS_TIMEOUT_SECONDS = 5.0
STATUS_THREADS = 8


class RequestRow(NamedTuple):
    """A request's row in the database."""

    request_id: str
    user_id: int
    coupon_id: int
    offset: int
    state: str
    code: str | None
    #: number of this issuance of its coupon
    sequence: int | None
    attempts: int
    decided_at: datetime | None


class Pending(NamedTuple):
    """Unfinished work; all zero when everything is final."""

    records: int
    undecided: int
    retries: int
    outbox: int
    dead_letters: int

    def __str__(self) -> str:
        left = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in self._asdict().items() if number)
        return f"pending: {left}" if left else "nothing pending"


_PENDING = (
    "SELECT (SELECT coalesce(sum(next_offset), 0)::int8 FROM offsets),"
    " (SELECT count(*) FROM requests WHERE decided_at IS NULL),"
    " (SELECT count(*) FROM retries),"
    " (SELECT count(*) FROM outbox),"
    " (SELECT count(*) FROM dead_letters WHERE forwarded_at IS NULL OR dlt_offset IS NULL)"
)


class SystemReader:
    """One connection to the database and one to Kafka; several threads may use them."""

    def __init__(self, database_url: str, bootstrap_servers: str) -> None:
        options = "-c default_transaction_read_only=on"
        self._database = psycopg.connect(database_url, autocommit=True, options=options)
        self._consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "demo"})  # it joins no group

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._consumer.close()
        self._database.close()

    def issued(self) -> int:
        """Count the coupons issued so far."""
        return int(self._row("SELECT coalesce(sum(issued), 0)::int8 FROM coupons")[0])

    def pending(self) -> Pending:
        """Return the unfinished work."""
        ends = self.records()  # read before the rows, whose offsets can only be higher
        decided, *counts = self._row(_PENDING)
        return Pending(max(0, ends - decided), *counts)

    def wait_until_final(self, within_seconds: float) -> Pending:
        """Wait until nothing is pending; return what still is when the time is over."""
        deadline = time.monotonic() + within_seconds
        while any(pending := self.pending()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return pending

    def records(self) -> int:
        """Count the records in the log."""
        topics = self._consumer.list_topics(Topic.ISSUE_COUPON, KAFKA_TIMEOUT_SECONDS).topics
        partitions = [TopicPartition(Topic.ISSUE_COUPON, number) for number in topics[Topic.ISSUE_COUPON].partitions]
        return sum(
            self._consumer.get_watermark_offsets(partition, KAFKA_TIMEOUT_SECONDS)[1] for partition in partitions
        )

    def rows(self) -> list[RequestRow]:
        """Return every request's row."""
        columns = ", ".join(f'"{name}"' for name in RequestRow._fields)
        with self._database.cursor(row_factory=class_row(RequestRow)) as cursor:
            return cursor.execute(f"SELECT {columns} FROM requests").fetchall()

    def retrying_or_standby(self) -> list[tuple[str, str]]:
        """Return request id and state of the requests that are retrying or on standby."""
        query = "SELECT request_id, state FROM requests WHERE state IN ('retrying', 'standby')"
        return self._database.execute(query).fetchall()

    def _row(self, query: str) -> tuple[int, ...]:
        row = self._database.execute(query).fetchone()
        assert row is not None
        return row


class RequestStatus(msgspec.Struct, frozen=True):
    """A response of `GET /issuances/{request_id}`, as far as the demo needs it."""

    request_id: str
    state: str
    attempts: int


#: by request id and state
ObservedStatuses = Mapping[tuple[str, str], RequestStatus]


@contextmanager
def observe_statuses(api: httpx.Client, reader: SystemReader) -> Iterator[ObservedStatuses]:
    """Record what the API returns for requests that are retrying or on standby, once for each request and state.

    A status is read as soon as the database shows the request in that state, until the block ends.
    """
    observed: dict[tuple[str, str], RequestStatus] = {}
    with ThreadPoolExecutor(STATUS_THREADS) as threads:

        def read_new() -> None:
            new = [
                request_id for request_id, state in reader.retrying_or_standby() if (request_id, state) not in observed
            ]
            statuses = threads.map(lambda request_id: _read_status(api, request_id), new)
            observed.update({(status.request_id, status.state): status for status in statuses if status})

        with repeat_every(STATUS_POLL_SECONDS, read_new):
            yield observed


def _read_status(api: httpx.Client, request_id: str) -> RequestStatus | None:
    """Read a request's status; None after an error: the next poll reads it again."""
    try:
        response = api.get(f"/issuances/{request_id}", timeout=STATUS_TIMEOUT_SECONDS).raise_for_status()
    except httpx.HTTPError:
        return None
    return msgspec.json.decode(response.content, type=RequestStatus)
