"""How fast a total grows."""

from service.domain.rate_meter import RateMeter


def _observed(*totals: tuple[float, int]) -> RateMeter:
    meter = RateMeter()
    for at, total in totals:
        meter.observe(total, at)
    return meter


def test_the_rate_is_that_of_the_last_three_seconds() -> None:
    meter = _observed((0, 0), (1, 1000), (2, 1000), (3, 1000), (4, 1060))

    assert meter.per_second == 20
    assert meter.peak_per_second == 1000


def test_one_total_has_no_rate() -> None:
    assert _observed((0, 500)).per_second is None


def test_a_total_that_was_not_observed_for_long_has_no_peak() -> None:
    """A million in an hour is not a million in a second, nor the rate of now."""
    meter = _observed((0, 0), (1, 10), (3600, 1_000_000))

    assert meter.per_second is None
    assert meter.peak_per_second == 10


def test_a_smaller_total_is_another_one() -> None:
    """The log was replaced."""
    meter = _observed((0, 900), (1, 1000), (2, 0), (3, 5))

    assert meter.per_second == 5
    assert meter.peak_per_second == 100


def test_observations_in_the_same_moment_count_once() -> None:
    """Otherwise a batch that is committed in between would look like a peak."""
    meter = _observed((0, 0), (0.01, 4000), (1, 4000))

    assert meter.peak_per_second == 4000
