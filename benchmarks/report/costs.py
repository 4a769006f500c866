"""The page's section on CPU time per request: one row for each case of the experiment `request_cost`."""

from collections.abc import Iterator

from benchmarks.experiments.request_cost import CASES
from benchmarks.figures import spread
from benchmarks.report.tables import format_number
from benchmarks.results import Result

_COLUMNS = {
    "requests/s": "per_second",
    "response p50 ms": "response_p50_ms",
    "p99 ms": "response_p99_ms",
    "API": "api_cpu_us",
    "issuer": "issuer_0_cpu_us",
    "Kafka": "kafka_cpu_us",
    "PostgreSQL": "postgres_cpu_us",
    "Valkey": "valkey_cpu_us",
    "all": "all_cpu_us",
}
"""Heading -> the end of the figure's name."""

_EXPLANATION = """\
CPU time in microseconds per response: user and system time of every process of a part, without the load generator. For
accepted requests it includes the issuing of all of them. At a low rate it includes what the processes use while they
wait: compare with the row without requests. Refusals and clients are measured with 64 connections that send the next
request after a response. A client without figures gets another answer than 202. Each figure is the median of the
rounds; the raw file has all of them.
"""


def section(result: Result, folder: str) -> Iterator[str]:
    """Yield the lines of the section; the raw file is in `folder`."""
    yield "## CPU time per request\n"
    yield _EXPLANATION
    yield f"[raw]({folder}/{result.experiment}.json), {len(result.rounds)} rounds, {result.seconds:.0f} s in total\n"
    yield f"| case | {' | '.join(_COLUMNS)} |"
    yield "|---" * (len(_COLUMNS) + 1) + "|"
    for case, description in CASES.items():
        cells = (_cell(result, f"{case}_{name}") for name in _COLUMNS.values())
        yield f"| {description} | {' | '.join(cells)} |"
    yield ""


def _cell(result: Result, name: str) -> str:
    values = [figures[name] for figures in result.rounds if name in figures]
    return format_number(spread(values).median) if values else "–"
