"""The list of metrics, its document, and the observations that count for many events."""

import re
from bisect import bisect_left
from itertools import pairwise

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from service import metrics, metrics_document
from service.domain.record import RawRecord, Record
from service.domain.request import LogPosition
from service.metrics import METRICS, BatchHistogram, ByLabels, Exporter, Kind, Metric
from service.scrape import render
from workers.issuer import batch_measurement

#: how a name ends says what is counted or measured
_UNITS = re.compile(
    r".*_(total|seconds|ratio|requests|connections|streams|records|letters|rows|messages|minute|available|ready|active|ok)"
)


def test_the_document_is_the_list_in_the_code() -> None:
    """After a change of the list, run `make metrics`."""
    assert metrics_document.PATH.read_text() == metrics_document.text()


@pytest.mark.parametrize("name", METRICS)
def test_a_name_follows_the_conventions(name: str) -> None:
    """It begins with the application and ends with the unit; counters, and only counters, end with `_total`."""
    metric = METRICS[name]

    assert re.fullmatch(r"coupons_[a-z_]+", name)
    assert _UNITS.fullmatch(name)
    assert name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.help.endswith(".")


def test_every_metric_of_this_service_is_in_the_list() -> None:
    """Nothing is counted beside the list."""
    counted = {family.name for family in REGISTRY.collect() if family.name.startswith("coupons_")}
    in_list = {name.removesuffix("_total") for name in METRICS}

    assert counted
    assert counted <= in_list


def test_a_scrape_has_the_metrics_of_its_process_only() -> None:
    """Otherwise every issuer would show accept latencies of nothing."""
    values: dict[Metric, ByLabels] = {
        metrics.PART_AVAILABLE: {("redis",): 1.0},
        metrics.WEBHOOK_ATTEMPTS: {("accepted",): 7.0},
    }

    of_api, of_issuer = (render(values, exporter).decode() for exporter in (Exporter.API, Exporter.ISSUER))

    assert "coupons_accept_seconds_count" in of_api
    assert "coupons_accept_seconds_count" not in of_issuer
    assert "coupons_issuer_write_seconds_count" in of_issuer
    for text in (of_api, of_issuer):
        assert 'coupons_part_available{part="redis"} 1.0' in text
        assert 'coupons_webhook_attempts_total{outcome="accepted"} 7.0' in text
        assert "# TYPE coupons_webhook_attempts_total counter" in text


def test_one_observation_of_many_is_many_observations_of_one() -> None:
    """The text that Prometheus reads is the same."""
    texts = []
    for many in (True, False):
        registry = CollectorRegistry()
        histogram = BatchHistogram("tried_seconds", "Tried.", buckets=(0.1, 1, 10), registry=registry)
        for value, count in ((0.1, 3), (0.11, 2), (99.0, 4)):
            if many:
                histogram.observe_many(value, count)
            else:
                for _ in range(count):
                    histogram.observe(value)
        texts.append(generate_latest(registry))

    assert texts[0] == texts[1]


@pytest.mark.parametrize("size", [0, 1, 19, 20, 21, 399, 4_000])
def test_the_measured_waits_of_a_batch_count_for_all_its_records(size: int) -> None:
    """At most twenty are measured, and the distribution is that of all records."""
    records = [
        Record.of(RawRecord(LogPosition(0, offset), None, None, (), 10_000 + offset), None) for offset in range(size)
    ]
    now_seconds = (10_000 + size) / 1000
    before = _wait_buckets()

    batch_measurement._observe_waits(records, now_seconds)

    counted = [after - earlier for after, earlier in zip(_wait_buckets(), before, strict=True)]
    exact = [0] * len(counted)
    bounds = METRICS["coupons_decision_wait_seconds"].buckets
    for record in records:
        exact[bisect_left(bounds, now_seconds - record.appended_at_ms / 1000)] += 1
    assert sum(counted) == size
    assert max(abs(one - other) for one, other in zip(counted, exact, strict=True)) <= size / 20


def _wait_buckets() -> list[float]:
    """Return how many waits were observed in each bucket."""
    (family,) = metrics.DECISION_WAIT_SECONDS.collect()
    cumulative = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
    return [cumulative[0], *(later - earlier for earlier, later in pairwise(cumulative))]
