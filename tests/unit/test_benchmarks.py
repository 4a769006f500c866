"""The benchmarks' arithmetic: percentiles, ratios, bounds, arrivals, and reading an answer."""

from pathlib import Path

import pytest

from benchmarks.arrivals import Arrivals
from benchmarks.figures import Spread, percentile, ratios, spread
from benchmarks.load.connection import Connection
from benchmarks.load.generator import request
from benchmarks.load.plan import Plan, Pressed
from benchmarks.report import charts, page
from benchmarks.report.profile import section
from benchmarks.report.rows import rows, text
from benchmarks.results import Circumstances, Result
from benchmarks.spying import STANDARD, read
from benchmarks.targets import PROMISED, Target
from stack.parts.surroundings import ROOT

AT_LEAST = Target("drained ÷ limit", "drain", "ours_per_second", "limit_per_second", 0.6)
AT_MOST = Target("wait p99", "accept", "wait_ms", None, 100, " ms", at_most=True)


def result(*rounds: dict[str, float], name: str = "drain") -> Result:
    return Result(name, "Drains a backlog.", {"requests": 10}, list(rounds), 1.0)


def pressed(due: list[float], sent: list[float], answered: list[float]) -> Pressed:
    return Pressed(0.0, due, sent, answered, {202: len(due)}, cpu_seconds=1.0, wall_seconds=4.0)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]

    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1.0) == 100
    assert percentile([7.0], 0.01) == 7


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_percentile_of_nothing_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_a_ratio_is_taken_within_a_round() -> None:
    """The medians of both sides, 3 and 20, would give another one."""
    rounds = [{"ours": 1.0, "limit": 10.0}, {"ours": 3.0, "limit": 20.0}, {"ours": 9.0, "limit": 30.0}]

    assert ratios(rounds, "ours", "limit") == pytest.approx([0.1, 0.15, 0.3])
    assert ratios(rounds, "ours", None) == [1, 3, 9]


def test_a_spread_needs_a_measurement() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(1, 2, 3)
    with pytest.raises(ValueError, match="nothing"):
        spread([])


def test_arrivals_are_due_whatever_became_of_those_before() -> None:
    """After a second in which nothing was answered, a second's requests are due, not one."""
    arrivals = Arrivals(rate=100, count=1000)

    assert arrivals.due_by(0) == 1
    assert arrivals.due_by(1) == 101
    assert arrivals.due_by(60) == 1000
    assert arrivals.due_by(-1) == 0


def test_each_arrival_is_released_when_it_is_due_and_not_before() -> None:
    arrivals = Arrivals(rate=8, count=50)

    for number in range(50):
        assert arrivals.due_by(arrivals.due_at(number)) == number + 1
        assert arrivals.due_by(arrivals.due_at(number) - 0.001) == number


def test_a_wait_counts_from_when_a_request_was_due() -> None:
    """No coordinated omission: the second one could be sent only when the first was answered, after four seconds."""
    found = pressed(due=[0.0, 1.0], sent=[0.0, 4.0], answered=[4.0, 4.5])

    assert found.latencies == [4.0, 3.5]
    assert found.cpu_share == 0.25


def test_the_first_seconds_do_not_count_for_a_rate() -> None:
    found = pressed(due=[0.0] * 4, sent=[0.0] * 4, answered=[0.5, 2.0, 2.5, 3.0])

    assert found.rate_after(1.0) == 1.5


def test_an_answer_counts_once_it_is_whole() -> None:
    answers: list[int] = []
    connection = Connection(lambda _, status: answers.append(status), _fail)

    for piece in (b"HTTP/1.1 202 Accep", b"ted\r\nContent-Length: 4\r\n", b"\r\nab", b"cd", b"HTTP/1.1 503 No\r\n\r\n"):
        connection.data_received(piece)

    assert answers == [202, 503]


def test_a_lost_connection_is_told() -> None:
    errors: list[Exception] = []

    Connection(lambda *_: None, errors.append).connection_lost(None)

    assert len(errors) == 1


def test_a_bound_tells_by_how_much_it_is_missed() -> None:
    assert AT_LEAST.missed_by(0.45) == pytest.approx(0.25)
    assert AT_LEAST.missed_by(0.6) == 0
    assert AT_MOST.missed_by(150) == pytest.approx(0.5)
    assert AT_MOST.missed_by(100) == 0


def test_a_row_says_what_was_reached_and_what_was_left_out() -> None:
    measured = {"drain": result({"ours_per_second": 30.0, "limit_per_second": 100.0})}

    missed, left_out = rows([AT_LEAST, AT_MOST], measured, failed=[])
    (failed,) = rows([AT_MOST], measured, failed=["accept"])

    assert missed == ("drained ÷ limit", "≥ 0.6×", "0.3×", "missed by 50%")
    assert left_out == ("wait p99", "≤ 100 ms", "–", "left out of this run")
    assert failed == ("wait p99", "≤ 100 ms", "–", "failed in this run")


def test_a_row_says_which_rounds_missed_and_bounds_nothing_without_a_bound() -> None:
    rounds = [{"ours_per_second": ours, "limit_per_second": 100.0} for ours in (50.0, 61.0, 90.0)]
    ran = {"drain": Result("drain", "what", {}, rounds, 1.0)}

    reached, unbound = rows([AT_LEAST, AT_LEAST._replace(bound=None)], ran, failed=[])

    assert reached[2:] == ("0.61× (0.5 – 0.9)", "reached, in 2 of 3 rounds")
    assert unbound[1:] == ("–", "0.61× (0.5 – 0.9)", "")


def test_a_sample_is_counted_where_our_code_was() -> None:
    ours, theirs = ROOT / "service" / "store" / "engine.py", "/lib/site-packages/psycopg/waiting.py"
    raw = f"""\
thread (7): MainThread;<module> ({ours}:1);now ({ours}:9);wait (a (b) c) ({theirs}:3) 12
thread (7): MainThread;<module> ({ours}:1);now ({ours}:9);execute ({theirs}:5) 3
thread (8): reader;run (/usr/lib/{STANDARD}/threading.py:3) 15
"""

    assert read(raw) == {"(MainThread) service.store.engine now → psycopg": 15, "(reader) threading": 15}


def test_the_profile_tells_of_threads_that_ran_and_of_no_false_nothing() -> None:
    first = {"there api (MainThread) a": 0.9, "ran api (MainThread) a": 0.1, "there api (idle) b": 1.0}
    second = {"there api (MainThread) a": 0.5, "there api (io) c": 0.9, "ran api (io) c": 0.8}

    told = list(section([first, second]))

    assert "| api | MainThread | `a` | 70% | 5% |" in told
    assert "| api | io | `c` | 45% | 40% |" in told
    assert not any("`b`" in line for line in told)


def test_figures_are_told_with_their_spread() -> None:
    assert text(Spread(0.5, 0.75, 0.8), "×") == "0.75× (0.5 – 0.8)"
    assert text(Spread(12345, 12345, 12345)) == "12,345"


def test_the_same_results_draw_the_same_bytes(tmp_path: Path) -> None:
    growth = result({"rows_0_per_second": 9.0, "rows_1000_per_second": 8.0}, name="growth")
    drawn = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        charts.draw({"growth": growth}, tmp_path / name)
        drawn.append((tmp_path / name / charts.SIZE).read_bytes())

    assert drawn[0] == drawn[1]
    assert b"Software" not in drawn[0]


def test_the_page_is_made_of_the_results(tmp_path: Path) -> None:
    told = Circumstances("python -m benchmarks", False, "today", "abc", {"cores": "2"}, {"python": "3"}, 0.5)
    first = PROMISED[0]
    figures = {first.over: 500.0, str(first.under): 1000.0, "to_be_per_second": 10.0}

    page.write({first.experiment: result(figures)}, told, tmp_path / "bench")

    written = (tmp_path / "bench.md").read_text()
    assert f"| {first.what} | ≥ 0.6× | 0.5× | missed by 17% |" in written
    assert "[raw](bench/drain.json)" in written


def test_users_take_the_paths_in_turn() -> None:
    plan = Plan(80, ["/a", "/b"], first_user=7, requests=3)

    built = [request(plan, number) for number in range(3)]

    assert [one.split(b" ")[1] for one in built] == [b"/a", b"/b", b"/a"]
    assert [one.rpartition(b"\r\n\r\n")[2] for one in built] == [b'{"user_id":%d}' % user for user in (7, 8, 9)]


def _fail(error: Exception) -> None:
    raise error
