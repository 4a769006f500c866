"""The benchmarks' arithmetic, the load generator's parser and schedule, profiles, tables and the page."""

from pathlib import Path

import pytest

from benchmarks import ROOT
from benchmarks.figures import Spread, percentile, ratios, spread
from benchmarks.load.generator import Connection, build_request
from benchmarks.load.http_load import ArrivalSchedule, LoadResult, Plan
from benchmarks.profiler import STDLIB_FOLDER, count_samples
from benchmarks.report import charts, page
from benchmarks.report.labels import label
from benchmarks.report.profile import section
from benchmarks.report.tables import format_spread, target_rows
from benchmarks.results import Result, RunInfo
from benchmarks.targets import PRIMARY, Target

AT_LEAST = Target("drained ÷ limit", "drain", "ours_per_second", "limit_per_second", 0.6)
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
        ("processes", "one_per_second", "1 API process: requests/s"),
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


def _fail(error: Exception) -> None:
    raise error
