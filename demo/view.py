"""The operator's view: what the database and the log say of themselves, read only."""

import time
from datetime import datetime
from typing import NamedTuple, Self

import psycopg
from confluent_kafka import Consumer, TopicPartition
from psycopg.rows import class_row

from service.stream.topics import Topic

KAFKA_SECONDS = 10.0
LOOK_SECONDS = 0.1


class Row(NamedTuple):
    """A decided request."""

    request_id: str
    user_id: int
    coupon_id: int
    #: its place in line
    offset: int
    state: str
    code: str | None
    #: as which of its coupon it was issued
    sequence: int | None
    attempts: int
    decided_at: datetime | None


class Pending(NamedTuple):
    """What is not final yet; all zero when everything is."""

    records: int
    undecided: int
    retries: int
    outbox: int
    dead_letters: int

    def __str__(self) -> str:
        left = ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in self._asdict().items() if number)
        return f"waiting: {left}" if left else "nothing waits"


_PENDING = (
    "SELECT (SELECT coalesce(sum(next_offset), 0)::int8 FROM offsets),"
    " (SELECT count(*) FROM requests WHERE decided_at IS NULL),"
    " (SELECT count(*) FROM retries),"
    " (SELECT count(*) FROM outbox),"
    " (SELECT count(*) FROM dead_letters WHERE forwarded_at IS NULL OR dlt_offset IS NULL)"
)


class View:
    """One connection to the database and one to Kafka; both may be used from several threads."""

    def __init__(self, database_url: str, bootstrap_servers: str) -> None:
        options = "-c default_transaction_read_only=on"
        self._database = psycopg.connect(database_url, autocommit=True, options=options)
        self._log = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "demo"})  # it joins no group

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._log.close()
        self._database.close()

    def issued(self) -> int:
        """Coupons issued so far."""
        return int(self._one("SELECT coalesce(sum(issued), 0)::int8 FROM coupons")[0])

    def pending(self) -> Pending:
        """What is not final yet."""
        ends = self.records()  # before the rows, which can only be further on
        decided, *waiting = self._one(_PENDING)
        return Pending(max(0, ends - decided), *waiting)

    def settle(self, within_seconds: float) -> Pending:
        """Waits until everything is final; what still is not after that time."""
        deadline = time.monotonic() + within_seconds
        while any(pending := self.pending()) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return pending

    def records(self) -> int:
        """Records in the log."""
        partitions = self._log.list_topics(Topic.ISSUE_COUPON, KAFKA_SECONDS).topics[Topic.ISSUE_COUPON].partitions
        places = (TopicPartition(Topic.ISSUE_COUPON, number) for number in partitions)
        return sum(self._log.get_watermark_offsets(place, KAFKA_SECONDS)[1] for place in places)

    def rows(self) -> list[Row]:
        """Every decided request."""
        columns = ", ".join(f'"{name}"' for name in Row._fields)
        with self._database.cursor(row_factory=class_row(Row)) as cursor:
            return cursor.execute(f"SELECT {columns} FROM requests").fetchall()

    def waiting(self) -> list[tuple[str, str]]:
        """Request id and state of those that are held or on standby."""
        query = "SELECT request_id, state FROM requests WHERE state IN ('retrying', 'standby')"
        return self._database.execute(query).fetchall()

    def _one(self, query: str) -> tuple[int, ...]:
        row = self._database.execute(query).fetchone()
        assert row is not None
        return row
