"""One failing item costs a few splits of the batch, and no other item fails."""

import time
from collections.abc import Callable, Sequence
from math import ceil, log2

import psycopg
import pytest

from service.domain.errors import Unavailable
from service.domain.failures import Failure, FailureClass, classify
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION, Failures, probe_then_write, write_bisecting

UNIQUE_VIOLATION = psycopg.errors.UniqueViolation("another writer decided first")


class FakeWriter:
    """Writes numbers unless one of them fails; records what was written and what failed, in order."""

    def __init__(self, failures: dict[int, Callable[[], Exception]]) -> None:
        self.failures = failures
        self.calls = 0
        self.written: list[int] = []
        self.failed: list[tuple[int, Failure]] = []

    def write(self, items: Sequence[int], failing: Failures) -> None:
        self.calls += 1
        for number in items:
            if str(number) not in failing and (failure := self.failures.get(number)):
                raise failure()
        self.written += items
        self.failed += [(int(number), failure) for number, failure in failing.items()]

    def write_failed(self, number: int, failure: Failure) -> None:
        self.written.append(number)
        self.failed.append((number, failure))

    def run(self, count: int) -> None:
        write_bisecting(range(count), self.write, self.write_failed)

    def find_failing(self, items: Sequence[int]) -> Failures:
        self.calls += 1
        return {str(number): classify(self.failures[number]()) for number in items if number in self.failures}


def test_a_batch_without_failures_is_one_write() -> None:
    """A batch in which nothing fails costs one call."""
    writer = FakeWriter({})

    writer.run(500)

    assert (writer.calls, writer.written, writer.failed) == (1, list(range(500)), [])


@pytest.mark.parametrize("bad", [0, 1, 249, 250, 498, 499])
def test_one_bad_record_costs_a_few_splits_and_keeps_the_order(bad: int) -> None:
    """P3: one failure among 500 fails no other item, is found in about 3·log2 writes, and the order is kept."""
    writer = FakeWriter({bad: lambda: ValueError("bad")})

    writer.run(500)

    assert writer.calls <= 1 + 3 * ceil(log2(500))
    assert writer.written == list(range(500))
    assert [number for number, _ in writer.failed] == [bad]
    assert writer.failed[0][1].message == "bad"


def test_a_batch_of_failing_items_fails_each_of_them_in_order() -> None:
    """Each item has its own failure."""
    writer = FakeWriter({number: lambda: ValueError("bad") for number in range(9)})

    writer.run(9)

    assert [number for number, _ in writer.failed] == list(range(9))


def test_with_a_probe_many_failures_cost_as_many_writes_as_one() -> None:
    """The probe finds all failing items of a small segment; one call writes them as failed and writes the others."""
    writer = FakeWriter({number: lambda: ValueError("bad") for number in range(0, 90, 2)})

    write_bisecting(range(90), writer.write, writer.write_failed, writer.find_failing)

    assert writer.calls == 3
    assert writer.written == list(range(90))
    assert [number for number, _ in writer.failed] == list(range(0, 90, 2))


def test_items_that_failed_before_are_probed_before_they_are_written() -> None:
    """Many requests that fail again cost no writes that are rolled back."""
    items = range(2 * MAX_FAILURES_PER_TRANSACTION + 50)
    writer = FakeWriter({number: lambda: ValueError("bad") for number in items})

    probe_then_write(items, writer.write, writer.write_failed, writer.find_failing)

    assert writer.calls == 2 * 3
    assert [number for number, _ in writer.failed] == list(items)


def test_probe_then_write_halves_a_segment_whose_failure_the_probe_misses() -> None:
    """A probe may miss a failure; the other segments are not affected by it."""
    items, bad = range(2 * MAX_FAILURES_PER_TRANSACTION + 50), MAX_FAILURES_PER_TRANSACTION + 30
    writer = FakeWriter({bad: lambda: ValueError("bad")})

    probe_then_write(items, writer.write, writer.write_failed, lambda _: {})

    assert writer.written == list(items)
    assert [number for number, _ in writer.failed] == [bad]


def test_write_bisecting_halves_a_segment_whose_failure_the_probe_misses() -> None:
    """A segment that still fails after the probe is split."""
    writer = FakeWriter({number: lambda: ValueError("bad") for number in (3, 7)})
    probe_results = [{"3": classify(ValueError("bad"))}, {}, {}]

    write_bisecting(
        range(8), writer.write, writer.write_failed, lambda _: probe_results.pop(0) if probe_results else {}
    )

    assert writer.written == list(range(8))
    assert [number for number, _ in writer.failed] == [3, 7]


def test_after_max_failures_it_ends_early_and_returns_the_number_written() -> None:
    """A batch with many failures does not lock its coupons until the last failure has been split off."""
    writer = FakeWriter({number: lambda: ValueError("bad") for number in (1, 2, 5, 6)})

    done = write_bisecting(range(9), writer.write, writer.write_failed, max_failures=3)

    assert done == 6
    assert writer.written == [0, 1, 2, 3, 4, 5]
    assert [number for number, _ in writer.failed] == [1, 2, 5]


def test_it_ends_early_after_max_seconds_if_there_was_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """At least one item is written, however long it took."""
    clock = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    writer = FakeWriter({1: lambda: ValueError("bad"), 7: lambda: ValueError("bad")})

    done = write_bisecting(range(9), writer.write, writer.write_failed, max_seconds=0.5)

    assert (done, writer.written) == (2, [0, 1])


def test_a_system_failure_is_raised_and_earlier_items_stay_written() -> None:
    """A system failure is raised unchanged and fails no item."""
    writer = FakeWriter({1: lambda: ValueError("bad"), 6: lambda: Unavailable("PostgreSQL", "it went away")})

    with pytest.raises(Unavailable, match="it went away"):
        writer.run(8)

    assert writer.written == [0, 1, 2, 3, 4]
    assert [number for number, _ in writer.failed] == [1]


def test_a_unique_violation_repeats_the_same_write() -> None:
    """A unique violation splits nothing and fails no item; the same write is decided again."""
    errors = iter([UNIQUE_VIOLATION, UNIQUE_VIOLATION])
    done: list[Sequence[int]] = []

    def write(items: Sequence[int], _: Failures) -> None:
        if error := next(errors, None):
            raise error
        done.append(items)

    write_bisecting(range(8), write, lambda number, _: pytest.fail(f"{number} was written as failed"))

    assert done == [range(8)]


def test_a_unique_violation_that_stays_is_the_items_failure() -> None:
    """After three decisions a unique violation is the record's own failure."""
    writer = FakeWriter({0: lambda: UNIQUE_VIOLATION})

    writer.run(1)

    assert writer.calls == 3
    assert writer.failed[0][1].failure_class is FailureClass.DECIDE_AGAIN
