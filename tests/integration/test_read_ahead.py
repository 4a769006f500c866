"""The issuer reads the next batch while one is written; when that one fails, what was read ahead is dropped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Event

import pytest
from celery import Celery
from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import Engine

from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.errors import Unavailable
from service.domain.record import Record
from service.resources import Resources
from service.stream import clients
from service.stream.partitioner import partition_of
from service.stream.topics import Topic
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION
from service.usecases.issue import Issuer
from service.usecases.write_plan import IssueResult
from tests.builders import PARTITIONS, key_register
from tests.integration.conftest import Query
from tests.log import Log
from tests.waiting import eventually
from workers.issuer.after_commit import AfterCommit
from workers.issuer.health import Health
from workers.issuer.loop import IssueLoop

#: failing records, several times what one batch decides of them
_BAD = 4 * MAX_FAILURES_PER_TRANSACTION


class FailingOnce(Issuer):
    """An issuer with one batch that hangs until the test allows it to fail, and then fails as the database does."""

    def __init__(self, store: Engine, log_id: int, failing_batch: int) -> None:
        super().__init__(store, log_id, key_register(), notices=False)
        self._failing_batch = failing_batch
        self.started, self.may_fail = Event(), Event()
        #: number of records of each batch
        self.batch_sizes: list[int] = []
        #: the offset after the batch that fails
        self.next_offset = 0

    def issue(
        self,
        records: Sequence[Record],
        next_offsets: Mapping[int, int],
        *,
        on_decided: Callable[[], None] = lambda: None,
    ) -> IssueResult:
        """Issue a batch, or fail."""
        self.batch_sizes.append(len(records))
        if len(self.batch_sizes) == self._failing_batch:
            self.next_offset = records[-1].offset + 1
            self.started.set()
            assert self.may_fail.wait(30)
            raise Unavailable("PostgreSQL", "it went away")
        return super().issue(records, next_offsets, on_decided=on_decided)


@pytest.fixture
def consumer(settings: Settings) -> Consumer:
    """The issuer's consumer; the loop closes it."""
    return clients.build_issuer_consumer(settings)


@contextmanager
def running(resources: Resources, consumer: Consumer, issuer: Issuer) -> Iterator[None]:
    """Run the loop in a thread of this process."""
    celery = Celery("tests", broker=resources.settings.celery_broker_url, set_as_current=False)
    after_commit = AfterCommit(celery, resources)
    with ExitStack() as opened:
        loop = IssueLoop(resources, lambda: consumer, issuer, after_commit, Health())
        opened.callback(after_commit.close, 5)
        opened.callback(loop.close)
        run = opened.enter_context(ThreadPoolExecutor(1)).submit(loop.run)
        opened.callback(run.result)
        opened.callback(loop.stop)
        yield


@pytest.fixture
def failing_once(resources: Resources, consumer: Consumer) -> Iterator[FailingOnce]:
    """A running issuer whose first batch will fail."""
    issuer = FailingOnce(resources.engine, resources.log_id, failing_batch=1)
    with running(resources, consumer, issuer):
        yield issuer
        issuer.may_fail.set()


def test_records_read_ahead_of_a_failed_batch_are_decided_after_it(
    real_log: Log, make_coupon: Callable[..., Coupon], failing_once: FailingOnce, consumer: Consumer, query: Query
) -> None:
    """P3, P4: the next record was read when the database went away; both are decided in their order."""
    coupon = make_coupon(quantity=9)
    at = TopicPartition(Topic.ISSUE_COUPON, partition_of(coupon.id, PARTITIONS))
    real_log.append_request(coupon.id, 1)
    assert failing_once.started.wait(30)
    real_log.append_request(coupon.id, 2)
    eventually(lambda: consumer.position([at])[0].offset > failing_once.next_offset)

    failing_once.may_fail.set()

    select = 'SELECT user_id, sequence FROM requests ORDER BY "offset"'
    assert eventually(lambda: len(rows := query(select)) == 2 and rows) == [(1, 1), (2, 2)]


@pytest.mark.parametrize("failing_batch", [0, 2])
def test_a_batch_that_ended_early_is_continued(
    real_log: Log,
    make_coupon: Callable[..., Coupon],
    resources: Resources,
    consumer: Consumer,
    query: Query,
    failing_batch: int,
) -> None:
    """P4: its other records come next, in small batches; if one of those fails, all after it is read again."""
    coupon = make_coupon(quantity=_BAD + 9)
    for user in range(1, _BAD + 1):
        real_log.append_request(coupon.id, user, fault="22012 1")
    real_log.append_request(coupon.id, _BAD + 1)
    issuer = FailingOnce(resources.engine, resources.log_id, failing_batch)
    issuer.may_fail.set()

    with running(resources, consumer, issuer):
        eventually(lambda: query("SELECT issued, held FROM coupons") == [(1, _BAD)])

    early_end = next(at for at, count in enumerate(issuer.batch_sizes) if count > MAX_FAILURES_PER_TRANSACTION)
    assert all(count <= 2 * MAX_FAILURES_PER_TRANSACTION for count in issuer.batch_sizes[early_end + 1 :])
    (row,) = query('SELECT max("offset") - min("offset") + 1 AS span, count(*) AS decided FROM requests')
    assert row.span == row.decided
