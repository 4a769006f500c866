"""Reads the values of PostgreSQL, Redis, Kafka and Celery's broker for a scrape, without waiting for one that hangs."""

from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from typing import Any, NamedTuple

from redis import Redis
from sqlalchemy import Engine

from service import metrics
from service.domain.retry import ISSUE_RETRY_POLICY
from service.domain.system_observation import FRESH_HEALTH_SECONDS
from service.gate.celery_broker import QueueState
from service.gate.gate_admin import GateAdmin
from service.gate.issuer_health import IssuerHealth, IssuerHealthBoard, PublishedHealth
from service.gate.task_counts import TaskCount, TaskCounts
from service.gate.webhook_failure import WebhookFailure
from service.gate.worker_board import WorkerBoard
from service.metrics import ByLabels, Metric, Values
from service.store import statistics
from service.store.engine import in_transaction
from service.store.statistics import Statistic, Work
from service.usecases.part_source import Answer, Source, answer_of
from service.webhooks.sender import WebhookOutcome

#: a part that has not answered after this time is unavailable
_TIMEOUT_SECONDS = 1.0
BROKER = "broker"

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
    Statistic.CONNECTIONS: metrics.DATABASE_CONNECTIONS,
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
    """What Celery's workers and the issuers left in Redis."""

    counts: Mapping[TaskCount, ByLabel]
    sweep_age_seconds: float | None
    #: seconds since the last heartbeat, by worker
    worker_ages: ByLabel
    issuers: Sequence[PublishedHealth]
    #: why the last POST of notices that failed was not accepted
    webhook_failure: str | None

    @property
    def fresh_health(self) -> IssuerHealth | None:
        """What an issuer published last; None if that is no longer so."""
        latest = min(self.issuers, key=lambda issuer: issuer.age_seconds, default=None)
        return latest.health if latest and latest.age_seconds <= FRESH_HEALTH_SECONDS else None


class BrokerState(NamedTuple):
    """The queues of Celery's broker, or why it does not answer; neither if that is not known."""

    queues: Mapping[str, QueueState] | None
    fault: str | None


class SystemReading(NamedTuple):
    """What the parts answered."""

    values: Values
    #: None: Redis did not answer
    issuers: Sequence[PublishedHealth] | None
    #: why a part did not answer, by part
    faults: Mapping[str, str]
    #: when the database answered, by the monotonic clock; None: it did not
    database_at: float | None
    #: the end offsets by partition; of one without a leader that answers there is none
    log_ends: Answer[Mapping[int, int]] | None
    #: why the last POST of notices that failed was not accepted; None: there was none lately, or it is not known
    webhook_failure: str | None


def read_database(store: Engine) -> Mapping[Statistic, ByLabel]:
    """Return the numbers of the database; raise Unavailable."""
    with in_transaction(store) as tx:
        return statistics.read(tx)


def read_redis(redis: "Redis") -> RedisValues:
    """Return what workers and issuers left in Redis; raise Unavailable."""
    return RedisValues(
        TaskCounts(redis).read(),
        GateAdmin(redis).seconds_since_sweep(),
        WorkerBoard(redis).ages(),
        IssuerHealthBoard(redis).read(),
        WebhookFailure(redis).read(),
    )


class SystemValues:
    """The values of all parts. What a part did not answer in time is absent."""

    def __init__(
        self,
        database: Source[Mapping[Statistic, ByLabel]],
        redis: Source[RedisValues],
        log_ends: Source[Mapping[int, int]],
        broker: Source[Mapping[str, QueueState]] | None = None,
    ) -> None:
        """`log_ends` reads the end offsets by partition, `broker` the queues of Celery's broker."""
        self._database = database
        self._redis = redis
        self._log_ends = log_ends
        self._broker = broker

    def read(self) -> Values:
        """Return all values; takes at most a second, whatever the parts do."""
        return self.observe().values

    def observe(self) -> SystemReading:
        """Return all values, and what else the parts answered; takes as long as read()."""
        asked = {source: source.ask() for source in self._sources}
        wait(asked.values(), timeout=_TIMEOUT_SECONDS)
        answers = {source: answer_of(future) for source, future in asked.items()}
        database: Answer[Any] | None = answers[self._database]
        redis: Answer[RedisValues] | None = answers[self._redis]
        broker = self._broker_state(answers)
        faults = {source.part: source.fault for source, answer in answers.items() if answer is None}
        if broker.fault:
            faults[BROKER] = broker.fault
        seconds = {source.part: answer.seconds for source, answer in answers.items() if answer}
        available = {**dict.fromkeys(seconds, 1.0), **dict.fromkeys(faults, 0.0)}
        if broker.queues is not None:
            available[BROKER] = 1.0
        values: dict[Metric, ByLabels] = {
            **self._values(answers),
            metrics.PART_AVAILABLE: _labelled(metrics.PART_AVAILABLE, available),
            metrics.PART_READ_SECONDS: _labelled(metrics.PART_READ_SECONDS, seconds),
        }
        if broker.queues is not None:
            values |= _queue_values(broker.queues)
        return SystemReading(
            values,
            redis.result.issuers if redis else None,
            faults,
            database.at if database else None,
            answers[self._log_ends],
            redis.result.webhook_failure if redis else None,
        )

    def _values(self, answers: Mapping[Source[Any], Answer[Any] | None]) -> dict[Metric, ByLabels]:
        values: dict[Metric, ByLabels] = {}
        if database := answers[self._database]:
            values |= _database_values(database.result)
        if redis := answers[self._redis]:
            values |= _redis_values(redis.result)
        if database and (ends := answers[self._log_ends]):
            values[metrics.UNDECIDED_RECORDS] = _lags(database.result[Statistic.NEXT_OFFSET], ends.result)
        return values

    def _broker_state(self, answers: Mapping[Source[Any], Answer[Any] | None]) -> BrokerState:
        """Return the state of Celery's broker, as it is read here or as an issuer published it."""
        if self._broker:
            answer = answers[self._broker]
            return BrokerState(answer.result, None) if answer else BrokerState(None, self._broker.fault)
        redis: Answer[RedisValues] | None = answers[self._redis]
        health = redis.result.fresh_health if redis else None
        return BrokerState(health.queues, health.broker_fault) if health else BrokerState(None, None)

    def read_broker(self) -> BrokerState:
        """Return the state of Celery's broker only, in at most a second."""
        if self._broker is None:
            return BrokerState(None, None)
        return self._broker_state({self._broker: self._broker.answer(_TIMEOUT_SECONDS)})

    @property
    def _sources(self) -> Sequence[Source[Any]]:
        return [self._database, self._redis, self._log_ends, *([self._broker] if self._broker else [])]

    def close(self) -> None:
        """End the threads after the reads in progress; their clients may be closed then."""
        for source in self._sources:
            source.close()


def _database_values(found: Mapping[Statistic, ByLabel]) -> dict[Metric, ByLabels]:
    return {metric: _labelled(metric, found[statistic]) for statistic, metric in _OF_DATABASE.items()}


def _redis_values(found: RedisValues) -> dict[Metric, ByLabels]:
    values = {metric: _labelled(metric, found.counts[count]) for count, metric in _OF_TASKS.items()}
    values[metrics.CELERY_WORKER_AGE_SECONDS] = _labelled(metrics.CELERY_WORKER_AGE_SECONDS, found.worker_ages)
    if found.sweep_age_seconds is not None:
        values[metrics.SWEEP_AGE_SECONDS] = {(): found.sweep_age_seconds}
    return values


def _queue_values(queues: Mapping[str, QueueState]) -> dict[Metric, ByLabels]:
    ages = {name: state.age_seconds for name, state in queues.items()}
    return {
        metrics.CELERY_QUEUE_MESSAGES: {(name,): state.messages for name, state in queues.items()},
        metrics.CELERY_QUEUE_AGE_SECONDS: {(name,): age for name, age in ages.items() if age is not None},
    }


def _lags(next_offsets: ByLabel, ends: Mapping[int, int]) -> ByLabels:
    """Return the undecided records by partition. Of one without a checkpoint none is decided."""
    return {(str(partition),): max(0, end - next_offsets.get(str(partition), 0)) for partition, end in ends.items()}


def _labelled(metric: Metric, found: ByLabel) -> ByLabels:
    """Return the values by the metric's labels; without labels the only one is called ''."""
    with_zeros = dict.fromkeys(_ZEROS.get(metric, ()), 0.0) | dict(found)
    return {(label,) if metric.labels else (): value for label, value in with_zeros.items()}
