"""The demo's plan: who asks for what, in which order, and whose issuing is made to fail."""

from collections import Counter
from random import Random

import pytest

from demo.sale import CONNECTIONS, FAULTS, REPEAT_WITHIN, TWICE, Ask, asks, offers

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


def test_whoever_is_made_to_fail_asks_once_and_gets_a_seat_whatever_overtakes(plan: list[Ask]) -> None:
    failing = [ask for ask in plan if ask.fault]
    times = Counter(ask.user_id for ask in plan)
    rank = {ask.user_id: at for at, ask in enumerate(ask for ask in plan if ask.offer == BIGGEST)}
    assert Counter(ask.fault for ask in failing) == Counter(FAULTS)
    assert all(ask.offer == BIGGEST and times[ask.user_id] == 1 for ask in failing)
    assert max(rank[ask.user_id] for ask in failing) + CONNECTIONS < QUANTITIES[BIGGEST]


def test_the_same_seed_is_the_same_sale() -> None:
    assert asks(500, QUANTITIES, Random("seed")) == asks(500, QUANTITIES, Random("seed"))


def test_a_sale_too_small_for_failures_has_none() -> None:
    assert not [ask for ask in asks(100, [10, 5], Random(1)) if ask.fault]


def test_one_user_and_one_coupon_are_a_sale() -> None:
    assert asks(1, [1], Random(1)) == [Ask(1, 0)]


def test_only_the_biggest_coupon_has_a_waitlist_for_what_the_dead_give_up() -> None:
    assert [offer.waitlist >= 3 for offer in offers(QUANTITIES)] == [False, True, False]
    assert [offer.quantity for offer in offers(QUANTITIES)] == list(QUANTITIES)
