"""The summary's sentences and the waits of the replaced scheduler."""

from dataclasses import replace

import pytest

from demo.summary import duration, percentile, scheduler_waits, sentences
from tests.unit.small_sale import small_sale


def test_the_summary_counts_users_and_gives_waits_with_their_units() -> None:
    first, second, third = sentences(small_sale())
    assert first == "5 of 6 users got one of the 5 coupons."
    assert second == (
        "Of the 5 users whose request was accepted, the median user waited 3.5 s for the decision; "
        "the longest wait was 4.5 s."
    )
    # noon is a multiple of 5 s, and the requests were sent half a second before it
    assert "wait 500 ms (median) and 500 ms (longest)" in third
    assert "assuming that it issues 100 of each coupon every 5 s and that nothing fails" in third


def test_the_summary_gives_the_reason_of_the_longest_wait() -> None:
    result = small_sale()
    sale = result.after_sale
    failed = replace(result, after_sale=sale._replace(rows=sale.rows[:4]))
    standby = replace(result, after_sale=sale._replace(rows=[*sale.rows[:3], sale.rows[4]]))
    assert (
        "the longest wait was 3.5 s, of a user whose request was made to fail and was retried" in sentences(failed)[1]
    )
    assert "of a user who was on standby behind requests" in sentences(standby)[1]


def test_a_sale_without_an_accepted_request_has_no_waits() -> None:
    assert sentences(replace(small_sale(), answers=[])) == ["5 of 6 users got one of the 5 coupons."]


@pytest.mark.parametrize(
    ("arrivals", "waits"),
    [
        ([], []),
        ([1.0], [4.0]),
        ([5.0], [5.0]),
        ([1.0, 2.0, 3.0], [4.0, 3.0, 7.0]),
        ([1.0, 2.0, 3.0, 4.0, 4.5, 11.0], [4.0, 3.0, 7.0, 6.0, 10.5, 4.0]),
        ([1.0, 21.0], [4.0, 4.0]),
    ],
)
def test_the_scheduler_issues_a_chunk_of_what_has_arrived_at_each_multiple_of_its_period(
    arrivals: list[float], waits: list[float]
) -> None:
    assert scheduler_waits(arrivals, period_seconds=5, chunk=2) == waits


def test_the_schedulers_median_wait_of_a_burst_of_1000_is_what_the_benchmark_measured() -> None:
    """docs/benchmarks/small_burst.json: 22 s to 24 s, and 49 s at most, depending on the moment of the burst."""
    waits = scheduler_waits([1.0] * 1_000)
    assert percentile(waits, 0.5) == 24.0
    assert max(waits) == 49.0


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([3.0], 0.99, 3.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0), (range(1, 101), 0.99, 99)],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], share: float, expected: float | None) -> None:
    assert percentile(values, share) == expected


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0.0004, "0 ms"), (0.1626, "163 ms"), (0.9999, "1.0 s"), (50.83, "50.8 s")]
)
def test_a_duration_has_a_unit(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
