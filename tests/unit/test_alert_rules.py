"""The rules of the API's alerts against those of Prometheus: the same words, and the same verdict on every scenario."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.domain.alert_rules import _RULES, ActiveProblem, AlertRules, Problem
from service.domain.system_alerts import ALERT_TEXTS, AlertName
from service.domain.system_observation import IssuerObservation, Observation, Part
from service.usecases.alerts import Alert
from service.usecases.system_alerts import _alert, _duration

PROMETHEUS = Path(__file__).parents[2] / "ops" / "prometheus"
#: only Prometheus can see that no API runs
_OF_PROMETHEUS_ALONE = "CouponsApiDown"
_LABELS = {"part": "{subject}", "work": "{subject}"}
_INTERVAL_SECONDS = 3
_SERIES = re.compile(r"(\w+)(?:\{(.*)\})?")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_EXPECTED = re.compile(r'alertname="(\w+)"')

Samples = Mapping[tuple[str, ...], float]

RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
SCENARIOS: list[dict[str, Any]] = [
    scenario
    for scenario in yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    if scenario["name"] != "the API was stopped"
]


def test_the_list_has_the_alerts_of_prometheus() -> None:
    """In the same order, and each with a rule."""
    assert [*AlertName] == [name for name in RULES if name != _OF_PROMETHEUS_ALONE]
    assert ALERT_TEXTS.keys() == set(AlertName) == _RULES.keys()


@pytest.mark.parametrize("name", AlertName)
def test_an_alert_has_the_words_of_prometheus(name: AlertName) -> None:
    """Severity, meaning, what to do, and the runbook; a label of Prometheus is the subject here."""
    text, rule = ALERT_TEXTS[name], RULES[name]
    summary = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda label: _LABELS[label[1]], rule["annotations"]["summary"])

    assert text.severity == rule["labels"]["severity"]
    assert (text.summary, text.action) == (summary, rule["annotations"]["description"])
    assert name.runbook == rule["annotations"]["runbook_url"]


def test_every_alert_of_the_service_has_a_rule() -> None:
    """What the service finds in the database is said here as well."""
    observed = AlertRules()
    follows = {Alert.UNDECIDED}  # from a missing key, and from another topic
    observed.observe(_well(0.0, service_alerts={alert.value: "why" for alert in Alert}))
    undecided = AlertRules()
    undecided.observe(_well(0.0, service_alerts=dict.fromkeys(follows, "why")))

    assert len(list(observed.active())) == len(Alert) - len(follows)
    assert [active.name for active in undecided.active()] == [AlertName.UNDECIDED]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
def test_a_scenario_has_the_alert_of_prometheus(scenario: dict[str, Any]) -> None:
    """The series of rules_test.yml as observations: at each time for which promtool expects alerts, the same ones."""
    expected = {
        _seconds(check["eval_time"]): set(_EXPECTED.findall(str(check["exp_samples"])))
        for check in scenario["promql_expr_test"]
    }
    rules = AlertRules()
    for observation in _observations(scenario["input_series"]):
        rules.observe(observation)
        at = observation.observed_at
        if at in expected:
            assert {active.name.value for active in rules.active()} == expected.pop(at), at
    assert not expected


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def _samples(input_series: list[dict[str, str]]) -> Iterator[Samples]:
    """Yield the samples at each time, by name and labels."""
    columns = {_key(series["series"]): list(_expanded(series["values"])) for series in input_series}
    for number in range(max(map(len, columns.values()))):
        yield {
            key: value
            for key, values in columns.items()
            if number < len(values) and (value := values[number]) is not None
        }


def _key(series: str) -> tuple[str, ...]:
    match = _SERIES.fullmatch(series)
    assert match
    return (match[1], *(f"{name}={value}" for name, value in sorted(_LABEL.findall(match[2] or ""))))


def _expanded(values: str) -> Iterator[float | None]:
    """Expand promtool's notation: `1x3` is 1 four times, `0+2x3` grows, `_` and `stale` are no sample."""
    for part in values.split():
        if part in {"stale", "_"}:
            yield None
        elif part.startswith("_x"):
            yield from [None] * int(part[2:])
        else:
            match = re.fullmatch(r"([\d.]+)(?:\+([\d.]+))?(?:x(\d+))?", part)
            assert match, part
            for number in range(int(match[3] or 0) + 1):
                yield float(match[1]) + number * float(match[2] or 0)


def _by(samples: Samples, name: str, label: str) -> dict[str, float]:
    """Return the greatest value of a metric for each value of a label, as the rules aggregate them."""
    found: dict[str, float] = {}
    for (metric, *labels), value in samples.items():
        if metric == name:
            key = dict(pair.split("=", 1) for pair in labels)[label]
            found[key] = max(value, found.get(key, value))
    return found


def _one(samples: Samples, name: str) -> float | None:
    return next((value for (metric, *_), value in samples.items() if metric == name), None)


def _observations(input_series: list[dict[str, str]]) -> Iterator[Observation]:
    """Yield what the API would see. Of the issuer it sees the published health where Prometheus has its port.

    Redis keeps the last health that it took, with its age; an issuer that ends in order withdraws it, if Redis lets it.
    """
    published: IssuerObservation | None = None
    for number, samples in enumerate(_samples(input_series)):
        up = _by(samples, "up", "job").get("coupons-issuer")
        hangs = up == 0 and (_one(samples, "scrape_duration_seconds") or 0) > 2
        takes_writes = bool(_by(samples, "coupons_part_ready", "part").get(Part.REDIS, True))
        if published:
            published = published._replace(age_seconds=published.age_seconds + _INTERVAL_SECONDS)
        decides = min(_by(samples, "coupons_oldest_undecided_age_seconds", "partition").values(), default=99) < 5
        if takes_writes and (up or (hangs and decides)):
            published = _published(samples)
        elif takes_writes and not hangs:
            published = None
        yield _observation(float(number * _INTERVAL_SECONDS), samples, published, has_connections=bool(up) or hangs)


def _published(samples: Samples) -> IssuerObservation:
    iteration = _one(samples, "coupons_issuer_iteration_age_seconds") or 0.0
    seconds, writes = (_one(samples, f"coupons_issuer_write_seconds_{suffix}") or 0.0 for suffix in ("sum", "count"))
    return IssuerObservation(0.0, iteration, seconds, writes)


def _observation(
    at: float, samples: Samples, published: IssuerObservation | None, *, has_connections: bool
) -> Observation:
    proof_ok = _one(samples, "coupons_verification_ok")
    available = {Part(part): bool(value) for part, value in _by(samples, "coupons_part_available", "part").items()}
    return Observation(
        observed_at=at,
        available=available,
        ready={Part(part): bool(value) for part, value in _by(samples, "coupons_part_ready", "part").items()},
        database_read_seconds=_by(samples, "coupons_part_read_seconds", "part").get(Part.POSTGRESQL),
        issuers=None if not available[Part.REDIS] else [published] if published else [],
        issuer_connections=float(has_connections) if available[Part.POSTGRESQL] else None,
        undecided_age_seconds=_by(samples, "coupons_oldest_undecided_age_seconds", "partition"),
        sweep_age_seconds=_one(samples, "coupons_sweep_age_seconds"),
        maintenance_messages=_by(samples, "coupons_celery_queue_messages", "queue").get("maintenance"),
        webhook_attempts=_by(samples, "coupons_webhook_attempts_total", "outcome"),
        work_age_seconds=_by(samples, "coupons_work_age_seconds", "work"),
        service_alerts=_service_alerts(samples),
        proof_ok=None if proof_ok is None else bool(proof_ok),
        responses=_by(samples, "coupons_issue_responses_total", "code"),
    )


def _service_alerts(samples: Samples) -> dict[str, str]:
    """Return those of API and issuers; that the API itself lacks a key is left out."""
    of_the_api = {"alert=key_missing", "job=coupons-api"}
    reported = {key: value for key, value in samples.items() if not of_the_api <= set(key)}
    return {alert: "why" for alert, is_on in _by(reported, "coupons_alert_active", "alert").items() if is_on}


def _well(at: float, **other: Any) -> Observation:
    """Return an observation of a system that is well, but for some values."""
    parts = dict.fromkeys(Part, True)
    issuers = [IssuerObservation(1.0, 0.1, 0.0, 0.0)]
    well = {"available": parts, "ready": parts, "issuers": issuers, "issuer_connections": 5.0, "sweep_age_seconds": 1.0}
    return Observation(observed_at=at, **{**well, **other})


def test_a_system_that_is_well_has_no_alert() -> None:
    rules = AlertRules()
    for at in range(0, 300, 2):
        rules.observe(_well(float(at)))
        assert not list(rules.active())


def test_a_fault_that_is_seen_late_is_as_old_as_the_part_says() -> None:
    """The last sweep has a time of its own, which is before the first look at it."""
    rules = AlertRules()
    rules.observe(_well(100.0, maintenance_messages=9.0, sweep_age_seconds=40.0))

    (active,) = rules.active()

    assert (active.name, active.since) == (AlertName.WORKER_DOWN, 60.0)


def test_a_fault_that_ends_before_its_time_is_no_alert() -> None:
    """And its time begins again."""
    rules = AlertRules()
    away = {**dict.fromkeys(Part, True), Part.REDIS: False}
    for at, available in ((0.0, away), (4.0, away), (6.0, dict.fromkeys(Part, True)), (8.0, away), (12.0, away)):
        rules.observe(_well(at, available=available))
        assert not list(rules.active())
    rules.observe(_well(14.0, available=away, reasons={Part.REDIS: "Connection refused"}))

    (active,) = rules.active()

    assert (active.name, active.since, active.problem.reason) == (AlertName.REDIS_DOWN, 8.0, "Connection refused")


def test_an_issuer_that_was_killed_is_down_and_one_that_hangs_is_frozen() -> None:
    """Both publish nothing; only the connections of the frozen one are open."""
    for connections, name in ((0.0, AlertName.ISSUER_DOWN), (4.0, AlertName.ISSUER_FROZEN)):
        rules = AlertRules()
        for at in (0.0, 6.0):
            silent = [IssuerObservation(20.0 + at, 0.1, 0.0, 0.0)]
            rules.observe(_well(at, issuers=silent, issuer_connections=connections))

        (active,) = rules.active()

        assert (active.name, active.since) == (name, -20.0)


def test_an_issuer_that_decides_and_cannot_publish_is_neither_down_nor_frozen() -> None:
    """Its connection to Redis is cut, or another version reads Redis: some watermark advances every two seconds."""
    rules = AlertRules()
    for at in range(0, 30, 2):
        rules.observe(_well(float(at), issuers=[], undecided_age_seconds={"0": 90.0, "1": 3.5}))
        assert not list(rules.active())


def test_a_count_that_falls_has_begun_again() -> None:
    """Redis was emptied: the attempts since then are failures, not a negative number of them."""
    rules = AlertRules()
    counts = ((0.0, 50.0), (2.0, 0.0), (4.0, 1.0), (6.0, 2.0))
    for at, rejected in counts:
        attempts = {"accepted": 9.0, "rejected": rejected, "unreachable": 0.0}
        rules.observe(_well(at, webhook_attempts=attempts, work_age_seconds={"notify": 5.0}))

    assert [active.name for active in rules.active()] == [AlertName.WEBHOOK_FAILING]


@pytest.mark.parametrize(
    ("failure", "words"), [(None, ""), ('it answered 503 and said "back at {}"',) * 2], ids=["unknown", "known"]
)
def test_a_failing_receiver_is_told_with_its_last_answer(failure: str | None, words: str) -> None:
    """Beside the numbers; braces of the receiver are not taken for the duration."""
    rules = AlertRules()
    for at, rejected, unreachable in ((0.0, 50.0, 3.0), (2.0, 52.0, 4.0)):
        attempts = {"accepted": 9.0, "rejected": rejected, "unreachable": unreachable}
        rules.observe(_well(at, webhook_attempts=attempts, webhook_failure=failure, work_age_seconds={"notify": 5.0}))

    (active,) = rules.active()
    cause = _alert(active, 2.0, datetime.now(UTC)).cause

    assert cause == (
        "The webhook's receiver has accepted no notice for 5 s: 3 POSTs failed after the last one that it accepted"
        f" (2 rejected, 1 without an answer){words and '; the last one: '}{words}"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (12.3, "12 s"), (119, "119 s"), (120, "2 min"), (7_199, "120 min"), (7_200, "2 h")],
)
def test_a_duration_is_said_in_one_unit(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


def test_a_cause_has_the_duration_and_the_parts_own_words() -> None:
    """In one line, whatever the driver's message looks like; the subject is in the summary."""
    problem = Problem("PostgreSQL has answered reads for {}", "could not\n\textend {}: disk full", 0.0, "PostgreSQL")
    now = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)

    alert = _alert(ActiveProblem(AlertName.WRITES_REFUSED, problem, since=100.0), 130.0, now)

    assert alert.cause == "PostgreSQL has answered reads for 30 s: could not extend {}: disk full"
    assert alert.summary.startswith("PostgreSQL answers and does not do what accepts need.")
    assert alert.since == datetime(2026, 1, 1, 12, tzinfo=UTC)


_REFUSED = {"accepted": 100.0, "unavailable": 900.0}
_NO_REQUEST = dict.fromkeys(_REFUSED, 0.0)
#: what lets the API answer requests with 503, and the alert that names it
_CAUSES_OF_503: Mapping[AlertName, dict[str, Any]] = {
    AlertName.DATABASE_DOWN: {"available": {**dict.fromkeys(Part, True), Part.POSTGRESQL: False}},
    AlertName.DATABASE_SLOW: {"database_read_seconds": 0.9},
    AlertName.REDIS_DOWN: {"available": {**dict.fromkeys(Part, True), Part.REDIS: False}},
    AlertName.KAFKA_DOWN: {"ready": {**dict.fromkeys(Part, True), Part.KAFKA: False}},
    AlertName.WRITES_REFUSED: {"ready": {**dict.fromkeys(Part, True), Part.POSTGRESQL: False}},
    AlertName.TOPIC_REPLACED: {
        "service_alerts": {"topic_replaced": "topic ISSUE_COUPON does not exist", "undecided": "nobody decides"},
        "ready": {**dict.fromkeys(Part, True), Part.KAFKA: False},
    },
    AlertName.KEY_MISSING: {"service_alerts": {"key_missing": "by fingerprint", "undecided": "nobody decides"}},
}


@pytest.mark.parametrize("cause", _CAUSES_OF_503)
def test_requests_that_get_503_are_not_said_beside_their_cause(cause: AlertName) -> None:
    """Nor just after it: the counts of the last minute still have them."""
    rules = AlertRules()
    rules.observe(_well(0.0, responses=_NO_REQUEST))
    for at in range(2, 60, 2):
        rules.observe(_well(float(at), responses=_REFUSED, **_CAUSES_OF_503[cause]))
        assert {active.name for active in rules.active()} <= {cause}, at
    assert [active.name for active in rules.active()] == [cause]
    for at in range(60, 90, 2):
        rules.observe(_well(float(at), responses=_REFUSED))
        assert not list(rules.active()), at


def test_a_full_line_is_one_alert() -> None:
    """Its 503 are counted by a code of their own."""
    rules = AlertRules()
    for at in range(0, 60, 2):
        rules.observe(_well(float(at), responses={"accepted": 100.0, "backlog_full": 50.0 * at, "unavailable": 0.0}))

    assert [active.name for active in rules.active()] == [AlertName.BACKLOG_FULL]


def test_requests_that_get_503_without_a_known_cause_are_said() -> None:
    """An alert about something else does not hide them."""
    rules = AlertRules()
    rules.observe(_well(0.0, responses=_NO_REQUEST))
    for at in range(2, 60, 2):
        rules.observe(
            _well(float(at), responses=_REFUSED, service_alerts={"unverified_ids": "why", "key_ended": "why"})
        )

    assert {active.name for active in rules.active()} == {
        AlertName.UNVERIFIED_IDS,
        AlertName.KEY_ENDED,
        AlertName.REQUESTS_UNAVAILABLE,
    }
