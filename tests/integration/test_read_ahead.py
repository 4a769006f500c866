"""The issuer reads the next poll while one is written: what was read ahead never outruns a poll that failed."""

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
from tests.builders import PARTITIONS
from tests.integration.conftest import Ask
from tests.log import Log
from tests.waiting import eventually
from workers.issuer.after_commit import AfterCommit
from workers.issuer.health import Health
from workers.issuer.loop import IssueLoop

#: bad records, several times of what one poll decides of them
_BAD = 4 * MAX_FAILURES_PER_TRANSACTION


class Faltering(Issuer):
    """Issues, but for one of its polls: that one hangs until the test says so, and then fails as a system does."""

    def __init__(self, store: Engine, log_id: int, fails: int) -> None:
        super().__init__(store, log_id, notices=False)
        self._fails = fails
        self.began, self.may_fail = Event(), Event()
        #: number of records of each poll
        self.polls: list[int] = []
        #: the offset after the poll that fails
        self.next_offset = 0

    def issue(
        self,
        records: Sequence[Record],
        next_offsets: Mapping[int, int],
        *,
        on_writing: Callable[[], None] = lambda: None,
    ) -> IssueResult:
        """That poll fails."""
        self.polls.append(len(records))
        if len(self.polls) == self._fails:
            self.next_offset = records[-1].raw.log_position.offset + 1
            self.began.set()
            assert self.may_fail.wait(30)
            raise Unavailable("PostgreSQL", "it went away")
        return super().issue(records, next_offsets, on_writing=on_writing)


@pytest.fixture
def consumer(settings: Settings) -> Consumer:
    """The issuer's consumer, which the loop closes."""
    return clients.build_issuer_consumer(settings)


@contextmanager
def at_work(resources: Resources, consumer: Consumer, issuer: Issuer) -> Iterator[None]:
    """The loop runs in a thread of this process."""
    teller = AfterCommit(Celery("tests", broker=resources.settings.celery_broker_url, set_as_current=False), resources)
    with ExitStack() as opened:
        loop = IssueLoop(resources, lambda: consumer, issuer, teller, Health())
        opened.callback(teller.close, 5)
        opened.callback(loop.close)
        running = opened.enter_context(ThreadPoolExecutor(1)).submit(loop.run)
        opened.callback(running.result)
        opened.callback(loop.stop)
        yield


@pytest.fixture
def faltering(resources: Resources, consumer: Consumer) -> Iterator[Faltering]:
    """An issuer at work whose first poll will fail."""
    issuer = Faltering(resources.engine, resources.log_id, fails=1)
    with at_work(resources, consumer, issuer):
        yield issuer
        issuer.may_fail.set()


def test_what_was_read_ahead_does_not_outrun_a_poll_that_failed(
    real_log: Log, make_coupon: Callable[..., Coupon], faltering: Faltering, consumer: Consumer, ask: Ask
) -> None:
    """P3, P4: the next poll was there already when the database went away; both are decided in their order."""
    coupon = make_coupon(quantity=9)
    at = TopicPartition(Topic.ISSUE_COUPON, partition_of(coupon.id, PARTITIONS))
    real_log.ask(coupon.id, 1)
    assert faltering.began.wait(30)
    real_log.ask(coupon.id, 2)
    eventually(lambda: consumer.position([at])[0].offset > faltering.next_offset)

    faltering.may_fail.set()

    query = 'SELECT user_id, sequence FROM requests ORDER BY "offset"'
    assert eventually(lambda: len(rows := ask(query)) == 2 and rows) == [(1, 1), (2, 2)]


@pytest.mark.parametrize("fails", [0, 2])
def test_a_poll_that_was_cut_short_is_gone_on_with(
    real_log: Log, make_coupon: Callable[..., Coupon], resources: Resources, consumer: Consumer, ask: Ask, fails: int
) -> None:
    """P4: what it did not come to is next, in small polls; if one of these fails, all after it is read again."""
    coupon = make_coupon(quantity=_BAD + 9)
    for user in range(1, _BAD + 1):
        real_log.ask(coupon.id, user, fault="22012 1")
    real_log.ask(coupon.id, _BAD + 1)
    issuer = Faltering(resources.engine, resources.log_id, fails)
    issuer.may_fail.set()

    with at_work(resources, consumer, issuer):
        eventually(lambda: ask("SELECT issued, held FROM coupons") == [(1, _BAD)])

    cut = next(at for at, count in enumerate(issuer.polls) if count > MAX_FAILURES_PER_TRANSACTION)
    assert all(count <= 2 * MAX_FAILURES_PER_TRANSACTION for count in issuer.polls[cut + 1 :])
    (row,) = ask('SELECT max("offset") - min("offset") + 1 AS span, count(*) AS decided FROM requests')
    assert row.span == row.decided
