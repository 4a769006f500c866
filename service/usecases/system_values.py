"""Reads the values of PostgreSQL, Redis, Kafka and Celery's broker for a scrape, without waiting for one that hangs."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import Engine

from service import metrics
from service.domain.failures import classify
from service.domain.retry import ISSUE_RETRY_POLICY
from service.gate.gate_admin import GateAdmin
from service.gate.task_counts import TaskCount, TaskCounts
from service.log import get_logger
from service.log_events import LogEvent
from service.metrics import ByLabels, Metric, Values
from service.store import statistics
from service.store.engine import in_transaction
from service.store.statistics import Statistic, Work
from service.webhooks.sender import WebhookOutcome

#: values are read at most this often, however many scrapes come
_INTERVAL_SECONDS = 1.0
#: a part that has not answered after this time is unavailable
_TIMEOUT_SECONDS = 1.0
_log = get_logger(__name__)

Result = TypeVar("Result")
#: values of one metric, by its label
ByLabel = Mapping[str, float]

_OF_DATABASE = {
    Statistic.ISSUED: metrics.ISSUED_REQUESTS,
    Statistic.HELD: metrics.HELD_REQUESTS,
    Statistic.STANDBY: metrics.STANDBY_REQUESTS,
    Statistic.RETRYING: metrics.RETRYING_REQUESTS,
    Statistic.WORK_ROWS: metrics.WORK_ROWS,
    Statistic.WORK_AGE: metrics.WORK_AGE_SECONDS,
    Statistic.NEW_DEAD_LETTERS: metrics.NEW_DEAD_LETTERS,
    Statistic.RECENT_DEAD_LETTERS: metrics.RECENT_DEAD_LETTERS,
    Statistic.UNDECIDED_AGE: metrics.OLDEST_UNDECIDED_AGE,
    Statistic.VERIFICATION_OK: metrics.VERIFICATION_OK,
    Statistic.VERIFICATION_AGE: metrics.VERIFICATION_AGE_SECONDS,
}
_OF_TASKS = {
    TaskCount.WEBHOOK_ATTEMPTS: metrics.WEBHOOK_ATTEMPTS,
    TaskCount.RETRY_ATTEMPTS: metrics.RETRY_ATTEMPTS,
}
_ATTEMPTS = [str(attempt) for attempt in range(1, ISSUE_RETRY_POLICY.attempts + 1)]
#: labels that are 0 when nothing has them. A rate needs the sample before the first count.
_ZEROS: Mapping[Metric, list[str]] = {
    metrics.ISSUED_REQUESTS: [""],
    metrics.HELD_REQUESTS: [""],
    metrics.STANDBY_REQUESTS: [""],
    metrics.RETRYING_REQUESTS: _ATTEMPTS[:-1],
    metrics.WORK_ROWS: [*Work],
    metrics.WORK_AGE_SECONDS: [*Work],
    metrics.WEBHOOK_ATTEMPTS: [*WebhookOutcome],
    metrics.RETRY_ATTEMPTS: _ATTEMPTS[1:],
}


class RedisValues(NamedTuple):
    """What Redis says about Celery's workers."""

    counts: Mapping[TaskCount, ByLabel]
    sweep_age_seconds: float | None


def read_database(store: Engine) -> Mapping[Statistic, ByLabel]:
    """Return the numbers of the database; raise Unavailable."""
    with in_transaction(store) as tx:
        return statistics.read(tx)


def read_redis(gate_admin: GateAdmin, task_counts: TaskCounts) -> RedisValues:
    """Return what the workers left in Redis; raise Unavailable."""
    return RedisValues(task_counts.read(), gate_admin.seconds_since_sweep())


class Answer(NamedTuple, Generic[Result]):
    """What a part answered, and the seconds that it took."""

    result: Result
    seconds: float


class Source(Generic[Result]):
    """A part that is read in a thread of its own, one read at a time.

    A read that does not end is not started again: each would hold another connection.
    """

    def __init__(self, part: str, read: Callable[[], Result]) -> None:
        self.part = part
        self._read = read
        self._executor = ThreadPoolExecutor(1, f"metrics {part}")
        self._lock = threading.Lock()
        self._began = 0.0
        self._running: Future[Answer[Result]] | None = None
        self._failed = False

    def ask(self) -> Future[Answer[Result]]:
        """Start to read, unless the last read is running or not old yet; return its result."""
        with self._lock:
            now = time.monotonic()
            if self._running is None or (self._running.done() and now > self._began + _INTERVAL_SECONDS):
                self._began = now
                self._running = self._executor.submit(self._timed_read)
            return self._running

    def _timed_read(self) -> Answer[Result]:
        began = time.monotonic()
        try:
            result = self._read()
        except Exception as error:
            if not self._failed:
                _log.warning(LogEvent.PART_NOT_READ, part=self.part, reason=str(classify(error)))
            self._failed = True
            raise
        self._failed = False
        return Answer(result, time.monotonic() - began)

    def close(self) -> None:
        """End the thread after the read in progress, which has time limits of its own."""
        self._executor.shutdown()


class SystemValues:
    """The values of all parts. What a part did not answer in time is absent."""

    def __init__(
        self,
        database: Source[Mapping[Statistic, ByLabel]],
        redis: Source[RedisValues],
        log_ends: Source[Mapping[int, int]],
        broker: Source[ByLabel] | None = None,
    ) -> None:
        """`log_ends` reads the end offsets by partition, `broker` the messages by queue of Celery's broker."""
        self._database = database
        self._redis = redis
        self._log_ends = log_ends
        self._broker = broker

    def read(self) -> Values:
        """Return all values; takes at most a second, whatever the parts do."""
        database, redis, log_ends = self._database.ask(), self._redis.ask(), self._log_ends.ask()
        broker = [self._broker.ask()] if self._broker else []
        asked: list[Future[Any]] = [database, redis, log_ends, *broker]
        wait(asked, timeout=_TIMEOUT_SECONDS)
        values: dict[Metric, ByLabels] = {}
        if stored := _answer(database):
            values |= _database_values(stored.result)
        if counted := _answer(redis):
            values |= _redis_values(counted.result)
        if stored and (ends := _answer(log_ends)):
            values[metrics.UNDECIDED_RECORDS] = _lags(stored.result[Statistic.NEXT_OFFSET], ends.result)
        for queues in broker:
            if waiting := _answer(queues):
                values[metrics.CELERY_QUEUE_MESSAGES] = _labelled(metrics.CELERY_QUEUE_MESSAGES, waiting.result)
        return {**values, **self._availability(asked)}

    def _availability(self, asked: Sequence[Future[Any]]) -> Values:
        answers = {source.part: _answer(future) for source, future in zip(self._sources, asked, strict=True)}
        return {
            metrics.PART_AVAILABLE: {(part,): float(answer is not None) for part, answer in answers.items()},
            metrics.PART_READ_SECONDS: {(part,): answer.seconds for part, answer in answers.items() if answer},
        }

    @property
    def _sources(self) -> Sequence[Source[Any]]:
        return [self._database, self._redis, self._log_ends, *([self._broker] if self._broker else [])]

    def close(self) -> None:
        """End the threads after the reads in progress; their clients may be closed then."""
        for source in self._sources:
            source.close()


def _answer(asked: Future[Answer[Result]]) -> Answer[Result] | None:
    return asked.result() if asked.done() and asked.exception() is None else None


def _database_values(found: Mapping[Statistic, ByLabel]) -> dict[Metric, ByLabels]:
    return {metric: _labelled(metric, found[statistic]) for statistic, metric in _OF_DATABASE.items()}


def _redis_values(found: RedisValues) -> dict[Metric, ByLabels]:
    values = {metric: _labelled(metric, found.counts[count]) for count, metric in _OF_TASKS.items()}
    if found.sweep_age_seconds is not None:
        values[metrics.SWEEP_AGE_SECONDS] = {(): found.sweep_age_seconds}
    return values


def _lags(next_offsets: ByLabel, ends: Mapping[int, int]) -> ByLabels:
    """Return the undecided records by partition. Of one without a checkpoint none is decided."""
    return {(str(at),): max(0, end - next_offsets.get(str(at), 0)) for at, end in ends.items()}


def _labelled(metric: Metric, found: ByLabel) -> ByLabels:
    """Return the values by the metric's labels; without labels the only one is called ''."""
    with_zeros = dict.fromkeys(_ZEROS.get(metric, ()), 0.0) | dict(found)
    return {(label,) if metric.labels else (): value for label, value in with_zeros.items()}
