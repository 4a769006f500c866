"""Writes docs/metrics.md from the list of metrics: `make metrics`."""

from pathlib import Path

from service.metrics import METRICS, Exporter, Metric

PATH = Path(__file__).parents[1] / "docs" / "metrics.md"

_INTRODUCTION = """# Metrics

Written by `make metrics` from the list in `service/metrics.py`. [Alerts](runbooks/README.md) and the dashboard
`ops/grafana/coupons.json` use these metrics; [deployment.md](deployment.md#prometheus) says how to scrape them, and
[ADR 0023](decisions/0023-metrics-are-counted-in-batches-and-read-at-the-scrape.md) why they are as they are.

- A value that is the same in every process is aggregated with `max`: several APIs and issuers export it.
- Counters and histograms are summed over all processes.
- A metric is absent while its part (PostgreSQL, Redis, Kafka, Celery's broker) does not answer;
  `coupons_part_available` says which part that is.
"""
_HEADINGS = {
    Exporter.API: "Of the API",
    Exporter.ISSUER: "Of the issuer",
    Exporter.EACH: "Of the API and the issuer, each with values of its own",
    Exporter.SHARED: "Of the API and the issuer, the same values",
}


def text() -> str:
    """Return the document."""
    parts = [_INTRODUCTION]
    for exporter, heading in _HEADINGS.items():
        rows = [_row(metric) for metric in METRICS.values() if metric.exporter is exporter]
        parts.append(
            "\n".join([f"## {heading}", "", "| metric | kind | labels | meaning |", "|---|---|---|---|", *rows])
        )
    return "\n".join([parts[0], "\n\n".join(parts[1:]), ""])


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


if __name__ == "__main__":
    PATH.write_text(text())
