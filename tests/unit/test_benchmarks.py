"""The benchmarks' arithmetic, the load generator's parser and schedule, comparisons, profiles, tables and the page."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import pytest

from benchmarks import ROOT, against
from benchmarks.checkout import WORK_TREE, Checkout
from benchmarks.environment import CpuTime, cpu_seconds
from benchmarks.experiments.common import Experiment
from benchmarks.figures import Spread, percentile, ratios, spread
from benchmarks.load.generator import Connection, Generator, build_request
from benchmarks.load.http_load import ArrivalSchedule, LoadResult, Plan
from benchmarks.profiler import STDLIB_FOLDER, count_samples
from benchmarks.report import charts, costs, page
from benchmarks.report.labels import label
from benchmarks.report.profile import section
from benchmarks.report.tables import format_spread, target_rows
from benchmarks.results import Result, RunInfo
from benchmarks.targets import PRIMARY, Target

AT_LEAST = Target("drained ÷ limit", "drain", "ours_per_second", "limit_per_second", 0.6)
ID_NEVER_SEEN = "refused: unknown coupon, an id never seen before: all: CPU time per request (µs)"
AT_MOST = Target("wait p99", "accept", "wait_ms", None, 100, " ms", at_most=True)


def result(*rounds: dict[str, float], name: str = "drain") -> Result:
    return Result(name, "Drains a backlog.", {"requests": 10}, list(rounds), 1.0)


def load_result(due: list[float], sent: list[float], responded: list[float]) -> LoadResult:
    return LoadResult(0.0, due, sent, responded, {202: len(due)}, cpu_seconds=1.0, wall_seconds=4.0)


def test_a_percentile_is_a_measured_value() -> None:
    values = [float(value) for value in range(100, 0, -1)]

    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1.0) == 100
    assert percentile([7.0], 0.01) == 7


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_percentile_of_no_values_is_an_error(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_a_ratio_is_taken_within_a_round() -> None:
    """The ratio of the medians, 3 and 20, would be another one."""
    rounds = [{"ours": 1.0, "limit": 10.0}, {"ours": 3.0, "limit": 20.0}, {"ours": 9.0, "limit": 30.0}]

    assert ratios(rounds, "ours", "limit") == pytest.approx([0.1, 0.15, 0.3])
    assert ratios(rounds, "ours", None) == [1, 3, 9]


def test_a_round_without_one_of_the_figures_has_no_ratio() -> None:
    """A client whose requests are not accepted has no figures."""
    rounds = [{"plain": 2.0}, {"plain": 2.0, "split": 3.0}]

    assert ratios(rounds, "split", "plain") == [1.5]
    assert ratios(rounds, "plain", None) == [2, 2]


def test_a_spread_of_no_values_is_an_error() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(1, 2, 3)
    with pytest.raises(ValueError, match="nothing"):
        spread([])


def test_requests_are_due_whatever_the_responses() -> None:
    """After a second without responses, all requests of that second are due, not one."""
    schedule = ArrivalSchedule(rate=100, count=1000)

    assert schedule.due_count(0) == 1
    assert schedule.due_count(1) == 101
    assert schedule.due_count(60) == 1000
    assert schedule.due_count(-1) == 0


def test_each_request_is_released_when_it_is_due_and_not_before() -> None:
    schedule = ArrivalSchedule(rate=8, count=50)

    for number in range(50):
        assert schedule.due_count(schedule.due_at(number)) == number + 1
        assert schedule.due_count(schedule.due_at(number) - 0.001) == number


def test_a_wait_begins_when_the_request_was_due() -> None:
    """No coordinated omission: the second request was sent only after the first one's response, at four seconds."""
    result = load_result(due=[0.0, 1.0], sent=[0.0, 4.0], responded=[4.0, 4.5])

    assert result.latencies == [4.0, 3.5]
    assert result.cpu_share == 0.25


def test_a_rate_excludes_the_warm_up() -> None:
    result = load_result(due=[0.0] * 4, sent=[0.0] * 4, responded=[0.5, 2.0, 2.5, 3.0])

    assert result.rate_after(1.0) == 1.5


def test_a_response_counts_when_it_is_complete() -> None:
    statuses: list[int] = []
    connection = Connection(lambda _, status: statuses.append(status), _fail)

    for piece in (b"HTTP/1.1 202 Accep", b"ted\r\nContent-Length: 4\r\n", b"\r\nab", b"cd", b"HTTP/1.1 503 No\r\n\r\n"):
        connection.data_received(piece)

    assert statuses == [202, 503]


def test_a_lost_connection_is_reported() -> None:
    errors: list[Exception] = []

    Connection(lambda *_: None, errors.append).connection_lost(None)

    assert len(errors) == 1


def test_a_missed_bound_is_quantified() -> None:
    assert AT_LEAST.missed_by(0.45) == pytest.approx(0.25)
    assert AT_LEAST.missed_by(0.6) == 0
    assert AT_MOST.missed_by(150) == pytest.approx(0.5)
    assert AT_MOST.missed_by(100) == 0


def test_a_row_shows_missed_left_out_and_failed_targets() -> None:
    measured = {"drain": result({"ours_per_second": 30.0, "limit_per_second": 100.0})}

    missed, left_out = target_rows([AT_LEAST, AT_MOST], measured, failed=[])
    (failed,) = target_rows([AT_MOST], measured, failed=["accept"])

    assert missed == ("drained ÷ limit", "≥ 0.6×", "0.3×", "missed by 50%")
    assert left_out == ("wait p99", "≤ 100 ms", "–", "left out of this run")
    assert failed == ("wait p99", "≤ 100 ms", "–", "failed in this run")


def test_a_row_shows_a_target_whose_figure_is_missing() -> None:
    (row,) = target_rows([AT_LEAST], {"drain": result({"limit_per_second": 100.0})}, failed=[])

    assert row[2:] == ("–", "not measured in this run")


def test_a_row_shows_how_many_rounds_reached_the_bound_and_no_verdict_without_a_bound() -> None:
    rounds = [{"ours_per_second": ours, "limit_per_second": 100.0} for ours in (50.0, 61.0, 90.0)]
    measured = {"drain": Result("drain", "what", {}, rounds, 1.0)}

    reached, unbound = target_rows([AT_LEAST, AT_LEAST._replace(bound=None)], measured, failed=[])

    assert reached[2:] == ("0.61× (0.5 – 0.9)", "reached, in 2 of 3 rounds")
    assert unbound[1:] == ("–", "0.61× (0.5 – 0.9)", "")


def test_a_sample_counts_for_the_innermost_function_of_this_project() -> None:
    ours, theirs = ROOT / "service" / "store" / "engine.py", "/lib/site-packages/psycopg/waiting.py"
    raw = f"""\
thread (7): MainThread;<module> ({ours}:1);now ({ours}:9);wait (a (b) c) ({theirs}:3) 12
thread (7): MainThread;<module> ({ours}:1);now ({ours}:9);execute ({theirs}:5) 3
thread (8): reader;run (/usr/lib/{STDLIB_FOLDER}/threading.py:3) 15
"""

    assert count_samples(raw) == {"(MainThread) service.store.engine now → psycopg": 15, "(reader) threading": 15}


def test_the_profile_shows_threads_that_ran_and_a_missing_location_as_zero() -> None:
    first = {"present api (MainThread) a": 0.9, "running api (MainThread) a": 0.1, "present api (idle) b": 1.0}
    second = {"present api (MainThread) a": 0.5, "present api (io) c": 0.9, "running api (io) c": 0.8}

    lines = list(section([first, second]))

    assert "| api | MainThread | `a` | 70% | 5% |" in lines
    assert "| api | io | `c` | 45% | 40% |" in lines
    assert not any("`b`" in line for line in lines)


def test_figures_are_formatted_with_their_spread() -> None:
    assert format_spread(Spread(0.5, 0.75, 0.8), "×") == "0.75× (0.5 – 0.8)"
    assert format_spread(Spread(12345, 12345, 12345)) == "12,345"


def test_the_same_results_draw_the_same_bytes(tmp_path: Path) -> None:
    growth = result({"rows_0_per_second": 9.0, "rows_1000_per_second": 8.0}, name="growth")
    drawn = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        charts.draw({"growth": growth}, tmp_path / name)
        drawn.append((tmp_path / name / charts.SIZE).read_bytes())

    assert drawn[0] == drawn[1]
    assert b"Software" not in drawn[0]


def test_the_page_is_generated_from_the_results(tmp_path: Path) -> None:
    run = RunInfo("python -m benchmarks", False, "today", "abc", {"cores": "2"}, {"python": "3"}, 0.5)
    first = PRIMARY[0]
    figures = {first.numerator: 500.0, str(first.denominator): 1000.0, "to_be_per_second": 10.0}

    page.write({first.experiment: result(figures)}, run, tmp_path / "bench")

    written = (tmp_path / "bench.md").read_text()
    assert f"| {first.description} | ≥ 0.6× | 0.5× | missed by 17% |" in written
    assert "[raw](bench/drain.json)" in written


@pytest.mark.parametrize(
    ("experiment", "name", "text"),
    [
        ("issuers", "two_per_second", "2 issuers: records/s"),
        ("processes", "one_per_second", "1 API process, issuer suspended: requests/s"),
        ("processes", "two_issuing_api_cores", "2 API processes, while issuing: api: cores"),
        ("request_cost", "at_64_per_second", "accepted and issued, 64 connections: requests/s"),
        ("request_cost", "unknown_new_all_cpu_us", ID_NEVER_SEEN),
        ("memory", "half_head_connection_kb", "connection with half a head: memory of the API kB"),
        ("memory", "under_load_mb", "under load: memory of the API MB"),
        ("hostile", "beside_response_p99_ms", "beside hostile connections: response p99 ms"),
        ("hostile", "half_closed_ended_by_server", "half-closed connections: ended by server"),
        ("waiting", "beside_polls_unchanged", "beside listeners and pollers: polls unchanged"),
        ("waiting", "listener_api_kb", "listener: api kB"),
        (
            "observation",
            "observed_accepted_per_second",
            "with metrics, scrapes and alerts, accepted while issuing: requests/s",
        ),
        ("observation", "dashboards_more_cores", "five dashboards, beside none: cores"),
        ("accept", "by_64_while_issuing_per_second", "64 connections, accepted while issuing: requests/s"),
        ("accept", "by_256_issuer_0_cpu_us", "256 connections, issuer 0: CPU time per request (µs)"),
        ("accept", "half_per_second", "at half of the rate while issuing: requests/s"),
        ("to_be_burst", "to_be_small_from_burst_p50_ms", "TO-BE, burst of 1,000: wait from the first request p50 ms"),
        (
            "coupons",
            "sharing_since_request_p50_ms",
            "cold coupons on the hot coupon's partition, beside it: time from the API's receipt to the commit p50 ms",
        ),
        ("growth", "rows_5000000_look_up_ms", "with 5,000,000 rows: look up ms"),
        ("growth", "resident_mb_before", "resident MB before"),
    ],
)
def test_a_label_says_what_was_measured(experiment: str, name: str, text: str) -> None:
    """The name of a figure in the raw files does not explain itself."""
    measured = Result(experiment, "", {"small": 1000, "large": 10_000}, [{name: 1.0}], 1.0)

    assert label(measured, name) == text


def test_users_request_the_paths_in_turn() -> None:
    plan = Plan(80, ["/a", "/b"], first_user=7, requests=3)

    built = [build_request(plan, number) for number in range(3)]

    assert [each.split(b" ")[1] for each in built] == [b"/a", b"/b", b"/a"]
    assert [each.rpartition(b"\r\n\r\n")[2] for each in built] == [b'{"user_id":%d}' % user for user in (7, 8, 9)]


def test_users_of_a_plan_repeat() -> None:
    plan = Plan(80, ["/a"], first_user=7, requests=3, users=2)

    bodies = [build_request(plan, number).rpartition(b"\r\n\r\n")[2] for number in range(3)]

    assert bodies == [b'{"user_id":7}', b'{"user_id":8}', b'{"user_id":7}']


def test_a_request_has_the_plans_headers_and_body() -> None:
    """`{number}` makes heads and paths unique, as those of real clients are."""
    plan = Plan(80, ["/a/{number}"], 1, 1, body="{", content_type="text/x", headers={"traceparent": "00-{number}"})

    head, _, body = build_request(plan, 12).partition(b"\r\n\r\n")

    assert head.split(b"\r\n") == [
        b"POST /a/0000000000000012 HTTP/1.1",
        b"Host: localhost",
        b"Content-Type: text/x",
        b"Content-Length: 1",
        b"traceparent: 00-0000000000000012",
    ]
    assert body == b"{"


@pytest.mark.parametrize(("split", "received"), [(False, 1), (True, 2)])
def test_a_split_request_arrives_in_two_segments(split: bool, received: int) -> None:
    segments: list[bytes] = []

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)

        def data_received(self, data: bytes) -> None:
            segments.append(data)
            if data.endswith(b"}"):
                self.transport.write(b"HTTP/1.1 202 Accepted\r\n\r\n")

    async def run() -> LoadResult:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await Generator(Plan(port, ["/a"], 1, requests=1, connections=1, split=split)).run()

    assert asyncio.run(run()).statuses == {202: 1}
    assert len(segments) == received
    assert b"".join(segments).endswith(b'\r\n\r\n{"user_id":1}')


def test_cpu_time_is_divided_by_requests_and_by_seconds() -> None:
    measured = CpuTime()
    measured.seconds = {"api": 1.0, "issuer-0": 0.5}

    assert measured.figures(1000) == {"api_cpu_us": 1000, "issuer_0_cpu_us": 500, "all_cpu_us": 1500}
    assert measured.cores(2.0) == {"api_cores": 0.5, "issuer_0_cores": 0.25, "all_cores": 0.75}


def test_cpu_time_of_a_process_is_what_it_used() -> None:
    before, began = cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() < began + 0.02:
        pass

    assert cpu_seconds(os.getpid()) - before >= 0.01  # the resolution where Linux's clock is absent


def test_a_checkout_runs_the_commands_of_its_own_entrypoint() -> None:
    other = Checkout(Path("/other"), Path("/env/bin"))

    assert other.argv("api") == ("/bin/sh", "/other/entrypoint", "api")
    assert other.variables["PYTHONPATH"] == "/other"
    assert other.variables["PATH"].startswith("/env/bin:")
    assert WORK_TREE.root == ROOT


def test_a_comparison_shows_the_ratio_within_pairs_of_rounds() -> None:
    """The ratio of the medians, 15 and 10, would be another one."""
    before, now = [{"a_us": 10.0}, {"a_us": 5.0}, {"a_us": 40.0}], [{"a_us": 5.0}, {"a_us": 15.0}, {"a_us": 30.0}]

    assert list(against.rows(result(), before, now)) == [("a us", "10", "15", "0.75× (0.5 – 3)")]


def test_a_comparison_shows_figures_of_one_commit_only() -> None:
    compared = list(against.rows(result(), [{"both": 2.0, "zero": 0.0}], [{"both": 1.0, "zero": 1.0, "new": 7.0}]))

    assert compared == [("both", "2", "1", "0.5×"), ("zero", "0", "1", "–"), ("new", "–", "7", "–")]


def test_rounds_of_both_commits_alternate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both environments are closed at the end, and the raw figures are kept."""
    events: list[str] = []

    class Size(NamedTuple):
        requests: int

    def measure(_: Path, size: Any, rounds: int, checkout: Checkout = WORK_TREE) -> Iterator[dict[str, float]]:
        side = "now" if checkout is WORK_TREE else "before"
        for _number in range(rounds):
            events.append(side)
            yield {"cost_us": float(size.requests if side == "now" else 2 * size.requests)}
        events.append(f"{side} closed")

    experiment = Experiment("cost", "What it costs.", measure, Size(5), None, 2, any_commit=True)
    other = Checkout(Path("/other"), Path("/env/bin"))
    against.compare(experiment, other, experiment.full, 2, tmp_path / "environments", tmp_path / "output")

    assert events == ["now", "before", "now", "before", "now closed", "before closed"]
    assert "| cost us" in capsys.readouterr().out.splitlines()[-1]
    written = msgspec.json.decode((tmp_path / "output" / "before" / "cost.json").read_bytes(), type=Result)
    assert written.rounds == [{"cost_us": 10.0}, {"cost_us": 10.0}]


def test_the_table_of_costs_has_a_row_for_each_case_and_a_dash_without_figures() -> None:
    measured = result(
        {"plain_api_cpu_us": 40.0, "plain_per_second": 9000.0},
        {"plain_api_cpu_us": 60.0, "plain_per_second": 8000.0},
        {"plain_api_cpu_us": 50.0, "plain_per_second": 7000.0},
        name="request_cost",
    )

    lines = list(costs.section(measured, "bench"))

    assert "| client: plain | 8,000 | – | – | 50 | – | – | – | – | – |" in lines
    assert "| client: offers Upgrade: h2c | – | – | – | – | – | – | – | – | – |" in lines


def _fail(error: Exception) -> None:
    raise error
