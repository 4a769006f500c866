"""The demo's plan: who asks for what, in which order, and whose issuing is made to fail."""

from collections import Counter
from random import Random

import pytest

from demo.sale import (
    FAILS_ONCE,
    FAILS_THRICE,
    FEWEST,
    ONCE,
    REPEAT_WITHIN,
    THRICE,
    TWICE,
    WAITLIST,
    Ask,
    asks,
    offers,
    stages,
)

QUANTITIES = (200, 1_000, 50)
BIGGEST = 1


@pytest.fixture(params=range(5))
def plan(request: pytest.FixtureRequest) -> list[Ask]:
    return asks(5_000, QUANTITIES, Random(request.param))


def test_every_user_asks_once_and_some_a_second_time_for_the_same(plan: list[Ask]) -> None:
    times = Counter(ask.user_id for ask in plan)
    assert set(times) == set(range(1, 5_001))
    assert Counter(times.values()) == {1: 5_000 - 5_000 * TWICE, 2: 5_000 * TWICE}
    assert len({(ask.user_id, ask.offer) for ask in plan}) == 5_000


def test_a_repeat_comes_soon_after_its_first(plan: list[Ask]) -> None:
    first_at: dict[int, int] = {}
    repeats_within = 2 * REPEAT_WITHIN  # other repeats come in between
    assert all(at - first_at.setdefault(ask.user_id, at) < repeats_within for at, ask in enumerate(plan))


def test_most_ask_for_the_biggest(plan: list[Ask]) -> None:
    asked = Counter(ask.offer for ask in plan)
    assert asked[1] > asked[0] > asked[2] > 0
    assert all(asked[at] > quantity for at, quantity in enumerate(QUANTITIES))


def test_whoever_is_made_to_fail_asks_once_for_the_biggest(plan: list[Ask]) -> None:
    failing = [ask for ask in plan if ask.fault]
    times = Counter(ask.user_id for ask in plan)
    assert Counter(ask.fault for ask in failing) == {FAILS_ONCE: ONCE, FAILS_THRICE: THRICE}
    assert all(ask.offer == BIGGEST and times[ask.user_id] == 1 for ask in failing)


def test_the_last_seats_are_lost_and_whoever_asks_next_stands_behind_them(plan: list[Ask]) -> None:
    before, last, behind = stages(plan)
    seated = {ask.user_id for ask in before if ask.offer == BIGGEST}
    the_outsiders = 1
    assert {ask.fault for ask in last} == {FAILS_THRICE}
    assert len(seated) + len(last) + the_outsiders == QUANTITIES[BIGGEST]
    assert len({ask.user_id for ask in behind if ask.offer == BIGGEST} - seated) > WAITLIST >= THRICE


def test_nobody_is_lost_or_moved_between_the_stages(plan: list[Ask]) -> None:
    def calm(asks: list[Ask]) -> list[Ask]:
        return [ask for ask in asks if ask.fault != FAILS_THRICE]

    staged = [ask for stage in stages(plan) for ask in stage]
    assert Counter(staged) == Counter(plan)
    assert calm(staged) == calm(plan)


def test_the_same_seed_is_the_same_sale() -> None:
    assert asks(500, QUANTITIES, Random("seed")) == asks(500, QUANTITIES, Random("seed"))


@pytest.mark.parametrize(("users", "quantities"), [(100, [FEWEST - 1, 5]), (40, [36, 1]), (20, [50])])
def test_a_sale_too_small_or_too_quiet_for_failures_has_none(users: int, quantities: list[int]) -> None:
    plan = asks(users, quantities, Random(1))
    assert not [ask for ask in plan if ask.fault]
    assert stages(plan) == [plan]


def test_in_a_small_sale_as_many_are_issued_at_once_as_fail() -> None:
    before, last, _ = stages(asks(100, [FEWEST, 5], Random(1)))
    seated = {ask for ask in before if ask.offer == 0}
    assert Counter(ask.fault for ask in seated) == {None: 13, FAILS_ONCE: 13}
    assert len(last) == THRICE


def test_one_user_and_one_coupon_are_a_sale() -> None:
    assert asks(1, [1], Random(1)) == [Ask(1, 0)]


def test_only_the_biggest_coupon_has_a_waitlist_for_what_the_dead_give_up() -> None:
    assert [offer.waitlist for offer in offers(QUANTITIES)] == [0, WAITLIST, 0]
    assert [offer.quantity for offer in offers(QUANTITIES)] == list(QUANTITIES)
