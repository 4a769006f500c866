"""One bad item costs a split, not the batch."""

import time
from collections.abc import Callable, Sequence
from math import ceil, log2

import psycopg
import pytest

from service.domain.errors import Unavailable
from service.domain.failures import Failure, FailureClass, classify
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION, Failures, probe_then_write, write_bisecting

TWICE = psycopg.errors.UniqueViolation("another writer decided first")


class Writes:
    """Writes numbers unless one of them fails; notes what was written and what was given up, in order."""

    def __init__(self, failures: dict[int, Callable[[], Exception]]) -> None:
        self.failures = failures
        self.calls = 0
        self.log: list[int] = []
        self.failed: list[tuple[int, Failure]] = []

    def write(self, some: Sequence[int], failing: Failures) -> None:
        self.calls += 1
        for number in some:
            if str(number) not in failing and (failure := self.failures.get(number)):
                raise failure()
        self.log += some
        self.failed += [(int(number), failure) for number, failure in failing.items()]

    def give_up(self, number: int, failure: Failure) -> None:
        self.log.append(number)
        self.failed.append((number, failure))

    def run(self, count: int) -> None:
        write_bisecting(range(count), self.write, self.give_up)

    def tell(self, some: Sequence[int]) -> Failures:
        self.calls += 1
        return {str(number): classify(self.failures[number]()) for number in some if number in self.failures}


def test_a_good_batch_is_one_write() -> None:
    """Step 4: a poll without trouble is one transaction."""
    writes = Writes({})

    writes.run(500)

    assert (writes.calls, writes.log, writes.failed) == (1, list(range(500)), [])


@pytest.mark.parametrize("bad", [0, 1, 249, 250, 498, 499])
def test_one_bad_record_costs_a_few_splits_and_keeps_the_order(bad: int) -> None:
    """Step 5: one bad record of 500 never fails the others, is found in about 3·log2 writes, and order is kept."""
    writes = Writes({bad: lambda: ValueError("bad")})

    writes.run(500)

    assert writes.calls <= 1 + 3 * ceil(log2(500))
    assert writes.log == list(range(500))
    assert [number for number, _ in writes.failed] == [bad]
    assert writes.failed[0][1].message == "bad"


def test_nothing_but_bad_records_are_all_given_up_in_order() -> None:
    """Step 5: each record's failure is its own."""
    writes = Writes({number: lambda: ValueError("bad") for number in range(9)})

    writes.run(9)

    assert [number for number, _ in writes.failed] == list(range(9))


def test_where_it_can_be_asked_which_ones_are_bad_many_cost_what_one_does() -> None:
    """Step 5: the bad ones of a small segment are told at once, and written as failed together with the good ones."""
    writes = Writes({number: lambda: ValueError("bad") for number in range(0, 90, 2)})

    write_bisecting(range(90), writes.write, writes.give_up, writes.tell)

    assert writes.calls == 3
    assert writes.log == list(range(90))
    assert [number for number, _ in writes.failed] == list(range(0, 90, 2))


def test_who_failed_before_is_asked_about_before_it_is_written() -> None:
    """Step 6: ten thousand that fail again cost no writes that are taken back."""
    items = range(2 * MAX_FAILURES_PER_TRANSACTION + 50)
    writes = Writes({number: lambda: ValueError("bad") for number in items})

    probe_then_write(items, writes.write, writes.give_up, writes.tell)

    assert writes.calls == 2 * 3
    assert [number for number, _ in writes.failed] == list(items)


def test_who_fails_in_writing_though_nothing_was_told_is_found_by_halving() -> None:
    """Step 6: what was told is not everything here either, and those asked about apart are not touched by it."""
    items, bad = range(2 * MAX_FAILURES_PER_TRANSACTION + 50), MAX_FAILURES_PER_TRANSACTION + 30
    writes = Writes({bad: lambda: ValueError("bad")})

    probe_then_write(items, writes.write, writes.give_up, lambda _: {})

    assert writes.log == list(items)
    assert [number for number, _ in writes.failed] == [bad]


def test_who_fails_only_in_company_is_found_by_halving() -> None:
    """Step 5: what was told is not everything: a segment that still fails is split."""
    writes = Writes({number: lambda: ValueError("bad") for number in (3, 7)})
    told = [{"3": classify(ValueError("bad"))}, {}, {}]

    write_bisecting(range(8), writes.write, writes.give_up, lambda _: told.pop(0) if told else {})

    assert writes.log == list(range(8))
    assert [number for number, _ in writes.failed] == [3, 7]


def test_after_many_failures_it_ends_early_and_tells_how_far_it_came() -> None:
    """Step 5: the coupons of a poll full of bad records are not locked until the last of them was split off."""
    writes = Writes({number: lambda: ValueError("bad") for number in (1, 2, 5, 6)})

    done = write_bisecting(range(9), writes.write, writes.give_up, failures_most=3)

    assert done == 6
    assert writes.log == [0, 1, 2, 3, 4, 5]
    assert [number for number, _ in writes.failed] == [1, 2, 5]


def test_few_failures_that_take_long_end_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 5: at least one item is done with, however long it took."""
    clock = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    writes = Writes({1: lambda: ValueError("bad"), 7: lambda: ValueError("bad")})

    done = write_bisecting(range(9), writes.write, writes.give_up, seconds_most=0.5)

    assert (done, writes.log) == (2, [0, 1])


def test_a_system_failure_is_raised_and_what_was_written_stays() -> None:
    """Step 5: nobody is given up for the system's trouble, which is raised as it came."""
    writes = Writes({1: lambda: ValueError("bad"), 6: lambda: Unavailable("PostgreSQL", "it went away")})

    with pytest.raises(Unavailable, match="it went away"):
        writes.run(8)

    assert writes.log == [0, 1, 2, 3, 4]
    assert [number for number, _ in writes.failed] == [1]


def test_who_lost_a_race_reads_and_decides_again() -> None:
    """Step 5: a unique violation splits nothing and gives nobody up; the same write is decided anew."""
    errors = iter([TWICE, TWICE])
    done: list[Sequence[int]] = []

    def write(some: Sequence[int], _: Failures) -> None:
        if error := next(errors, None):
            raise error
        done.append(some)

    write_bisecting(range(8), write, lambda number, _: pytest.fail(f"{number} was given up"))

    assert done == [range(8)]


def test_deciding_again_has_an_end() -> None:
    """Step 5: a unique violation that never goes away is the record's own failure at last."""
    writes = Writes({0: lambda: TWICE})

    writes.run(1)

    assert writes.calls == 3
    assert writes.failed[0][1].failure_class is FailureClass.DECIDE_AGAIN
