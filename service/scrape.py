"""Answers a scrape of Prometheus: what this process counted, and the values that are read now."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.config import Settings
from service.gate.celery_broker import read_queues
from service.gate.client import build_client
from service.metrics import METRICS, MULTIPROCESS_DIRECTORY_VARIABLE, Exporter, Kind, Metric, Values
from service.resources import open_engine
from service.stream import log_ends, topics
from service.usecases import system_values
from service.usecases.part_source import Source
from service.usecases.system_values import SystemValues

#: prometheus_client's families of counters are called without it
_COUNTER_SUFFIX = "_total"
#: less than the time after which Kafka counts as unavailable
_KAFKA_SECONDS = 0.9


class _Scrape(Collector):
    """The metrics of one scrape; those of other kinds of processes are left out."""

    def __init__(self, counted: Collector, values: Values, exporter: Exporter) -> None:
        self._counted = counted
        self._values = values
        self._exporters = (exporter, Exporter.EACH, Exporter.SHARED)

    def collect(self) -> Iterable[Family]:
        """Return what was counted, then the values."""
        for family in self._counted.collect():
            metric = METRICS.get(family.name) or METRICS.get(family.name + _COUNTER_SUFFIX)
            if metric is None or metric.exporter in self._exporters:  # None: those of the interpreter
                yield family
        for metric, by_labels in self._values.items():
            yield _family(metric, by_labels.items())


def _family(metric: Metric, samples: Iterable[tuple[tuple[str, ...], float]]) -> Family:
    make = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = make(metric.name, metric.help, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def render(values: Values, exporter: Exporter) -> bytes:
    """Return the answer in Prometheus's text format; counts are the sums of the processes that share this port."""
    counted: Collector = REGISTRY
    if MULTIPROCESS_DIRECTORY_VARIABLE in os.environ:
        counted = CollectorRegistry()
        MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    registry.register(_Scrape(counted, values, exporter))
    return generate_latest(registry)


@contextmanager
def open_system_values(settings: Settings, name: str, queues: Sequence[str] = ()) -> Iterator[SystemValues]:
    """Build what reads the values of PostgreSQL, Redis and Kafka, with clients of its own; nothing connects yet.

    PostgreSQL shows `name` for the connection. `queues`: those of Celery's broker, in a process that may read it; the
    others read what an issuer published.
    """
    with ExitStack() as opened:
        store = opened.enter_context(open_engine(settings, name))
        redis = opened.enter_context(build_client(settings.redis_url))
        read_ends = partial(
            log_ends.end_offsets, topics.build_admin(settings), settings.topic_partitions, _KAFKA_SECONDS
        )
        broker = None
        if queues and not settings.celery_over_kafka:
            client = opened.enter_context(build_client(settings.celery_broker_url))
            broker = Source(system_values.BROKER, partial(read_queues, client, queues))
        values = SystemValues(
            Source("postgresql", partial(system_values.read_database, store)),
            Source("redis", partial(system_values.read_redis, redis)),
            Source("kafka", read_ends),
            broker,
        )
        opened.callback(values.close)
        yield values
