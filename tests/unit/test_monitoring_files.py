"""The rules and the dashboard: expressions parse, metrics exist, alerts have runbooks, promtool's tests pass."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import pytest
import yaml
from promql_parser import Expr, MatrixSelector, VectorSelector

from service.domain.system_observation import MAX_SWEEP_AGE_SECONDS
from service.metrics import METRICS, Kind
from service.usecases.alerts import Alert

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "ops" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
#: of Prometheus itself and its Python client
_FOREIGN = {"up", "scrape_duration_seconds", "ALERTS", "process_cpu_seconds_total"}
_SUFFIXES = ("_bucket", "_sum", "_count")
#: Grafana's variables, with a value that parses
_VARIABLES = {"$__rate_interval": "1m"}


class Use(NamedTuple):
    """A metric in an expression."""

    where: str
    metric: str
    labels: tuple[str, ...]
    #: the functions and aggregations around it
    functions: tuple[str, ...]


RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARD: dict[str, Any] = json.loads((ROOT / "ops" / "grafana" / "coupons.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def _expressions() -> Iterator[tuple[str, str]]:
    """Yield every expression with its place."""
    for rule in RULES:
        yield rule.get("alert") or f"{rule['record']} {rule.get('labels', '')}", rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]


def _parse(expression: str) -> Expr:
    for variable, value in _VARIABLES.items():
        expression = expression.replace(variable, value)
    return promql_parser.parse(expression)


def _uses() -> Iterator[Use]:
    for where, expression in _expressions():
        around: list[str] = []
        found: list[Use] = []

        def enter(node: Expr, around: list[str] = around, found: list[Use] = found, where: str = where) -> None:
            around.append(node.func.name if isinstance(node, promql_parser.Call) else type(node).__name__)
            if isinstance(node, MatrixSelector):
                node = node.vector_selector
            if isinstance(node, VectorSelector):
                labels = tuple(matcher.name for matcher in node.matchers.matchers)
                found.append(Use(where, node.name or "", labels, tuple(around)))

        def leave(_: Expr, around: list[str] = around) -> None:
            around.pop()

        promql_parser.walk(_parse(expression), enter, leave)
        yield from found


USES = list(_uses())


def test_there_is_something_to_test() -> None:
    """A file that cannot be read, or a syntax tree with other names, must not pass for one without faults."""
    assert len(RULES) > 40
    assert len(PANELS) > 25
    assert {"coupons_accept_seconds_bucket", "coupons_alert_active", "up"} <= {use.metric for use in USES}


@pytest.mark.parametrize(("where", "expression"), list(_expressions()), ids=lambda text: text[:60])
def test_an_expression_parses(where: str, expression: str) -> None:
    assert _parse(expression), where


def test_every_metric_exists_with_these_labels() -> None:
    """A panel of a metric that is called otherwise stays empty, and an alert of it never fires."""
    wrong = []
    for use in USES:
        if use.metric in _FOREIGN | RECORDED:
            continue
        metric = METRICS.get(use.metric) or METRICS.get(_family(use.metric))
        if metric is None:
            wrong.append(f"{use.where}: {use.metric} does not exist")
        elif unknown := set(use.labels) - {*metric.labels, "job", "le"}:
            wrong.append(f"{use.where}: {use.metric} has no label {unknown}")

    assert not wrong, "\n".join(wrong)


def test_every_metric_is_used_as_what_it_is() -> None:
    """A histogram by its series, a counter through its growth or explicitly its last value, a gauge without growth."""
    wrong = []
    for use in USES:
        if use.metric in _FOREIGN | RECORDED:
            continue
        kind = METRICS[_family(use.metric)].kind
        is_rate = bool({"rate", "increase"}.intersection(use.functions))
        is_counted = is_rate or (kind is Kind.COUNTER and "last_over_time" in use.functions)
        if (kind is Kind.HISTOGRAM) != use.metric.endswith(_SUFFIXES) or (kind is Kind.GAUGE) == is_counted:
            wrong.append(f"{use.where}: {use.metric} is a {kind}")

    assert not wrong, "\n".join(wrong)


def _family(name: str) -> str:
    """Return the name of the metric that has this series."""
    family = re.sub("_(bucket|sum|count)$", "", name)
    return family if family in METRICS and METRICS[family].kind is Kind.HISTOGRAM else name


def test_every_metric_is_shown_or_watched() -> None:
    """A metric that nobody sees is a cost without a use."""
    assert set(METRICS) - {_family(use.metric) for use in USES} == set()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_has_a_unit_and_a_description(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["description"].endswith(".")
    assert panel["targets"]


def test_panels_have_one_id_and_one_place_each() -> None:
    """Grafana would show one of two with the same id."""
    cells = [
        (panel["gridPos"]["x"] + dx, panel["gridPos"]["y"] + dy)
        for panel in DASHBOARD["panels"]
        for dx in range(panel["gridPos"]["w"])
        for dy in range(panel["gridPos"]["h"])
    ]

    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_every_variable_of_a_panel_is_defined() -> None:
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([panel.get("targets") for panel in PANELS])))

    assert used <= defined


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_to_do_and_has_a_runbook(alert: dict[str, Any]) -> None:
    """The page has the same parts everywhere, and the index names it."""
    annotations, page = alert["annotations"], RUNBOOKS / f"{alert['alert']}.md"

    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert annotations["summary"].endswith((".", "out."))
    assert annotations["description"].endswith(".")
    assert annotations["runbook_url"] == str(page.relative_to(ROOT))
    headings = re.findall("^#+ (.*)$", page.read_text(), re.MULTILINE)
    assert headings == [alert["alert"], "What it means", "How to confirm", "What to do", "When it is over"]
    assert f"[{alert['alert']}]({alert['alert']}.md)" in (RUNBOOKS / "README.md").read_text()


def test_a_late_sweep_is_the_same_in_the_rules_and_in_the_code() -> None:
    """`coupons doctor` and `GET /alerts` have the constant."""
    (rule,) = [rule["expr"] for rule in RULES if rule.get("record") == "coupons:sweep_late"]

    assert f"last_over_time(coupons_sweep_age_seconds[10s])) > {MAX_SWEEP_AGE_SECONDS:.0f}" in rule


def test_every_runbook_belongs_to_an_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == {alert["alert"] for alert in ALERTS} | {"README"}


def test_every_fault_and_every_alert_of_the_service_has_an_alert() -> None:
    """What the rules or the service find is said to somebody."""
    alerts = " ".join(alert["expr"] for alert in ALERTS)
    faults = {rule["labels"]["fault"]: rule["expr"] for rule in RULES if rule.get("record") == "coupons:fault"}

    assert not {fault for fault in faults if f'{{fault="{fault}"}}' not in alerts}
    assert not {alert for alert in Alert if f'alert="{alert}"' not in " ".join([alerts, *faults.values()])}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "rules.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
        ("test", "rules", "rules_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts_it(arguments: tuple[str, ...]) -> None:
    """Each of the faults raises exactly its alert within 15 s, and none is raised while all is well."""
    promtool = shutil.which("promtool")
    if promtool is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("promtool is missing: apt-get install prometheus")

    done = subprocess.run([promtool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_of_its_rule() -> None:
    """Those that promtool runs."""
    tested = set(re.findall(r'alertname="(\w+)"', (PROMETHEUS / "rules_test.yml").read_text()))

    assert {alert["alert"] for alert in ALERTS} - tested == set()
