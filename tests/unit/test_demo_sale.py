"""The demo's plan: who requests which coupon in which order, and whose requests fail on purpose."""

from collections import Counter
from random import Random

import pytest

from demo.sale import (
    ALWAYS,
    FAILS_ALWAYS,
    FAILS_ONCE,
    MIN_QUANTITY_FOR_FAULTS,
    ONCE,
    REPEAT_WITHIN,
    REPEATING_SHARE,
    WAITLIST,
    IssuanceRequest,
    offers,
    plan_requests,
    stages,
)

QUANTITIES = (200, 1_000, 50)
BIGGEST = 1


@pytest.fixture(params=range(5))
def plan(request: pytest.FixtureRequest) -> list[IssuanceRequest]:
    return plan_requests(5_000, QUANTITIES, Random(request.param))


def test_every_user_requests_one_coupon_and_some_repeat_it(plan: list[IssuanceRequest]) -> None:
    times = Counter(request.user_id for request in plan)
    assert set(times) == set(range(1, 5_001))
    assert Counter(times.values()) == {1: 5_000 - 5_000 * REPEATING_SHARE, 2: 5_000 * REPEATING_SHARE}
    assert len({(request.user_id, request.offer) for request in plan}) == 5_000


def test_a_repeat_follows_its_request_soon(plan: list[IssuanceRequest]) -> None:
    first_at: dict[int, int] = {}
    repeats_within = 2 * REPEAT_WITHIN  # other repeats come in between
    assert all(at - first_at.setdefault(request.user_id, at) < repeats_within for at, request in enumerate(plan))


def test_most_users_request_the_biggest_coupon(plan: list[IssuanceRequest]) -> None:
    requested = Counter(request.offer for request in plan)
    assert requested[1] > requested[0] > requested[2] > 0
    assert all(requested[at] > quantity for at, quantity in enumerate(QUANTITIES))


def test_requests_that_fail_are_for_the_biggest_coupon_and_not_repeated(plan: list[IssuanceRequest]) -> None:
    failing = [request for request in plan if request.fault]
    times = Counter(request.user_id for request in plan)
    assert Counter(request.fault for request in failing) == {FAILS_ONCE: ONCE, FAILS_ALWAYS: ALWAYS}
    assert all(request.offer == BIGGEST and times[request.user_id] == 1 for request in failing)


def test_the_last_seats_are_released_and_the_next_requests_stand_behind_them(plan: list[IssuanceRequest]) -> None:
    before, last, behind = stages(plan)
    seated = {request.user_id for request in before if request.offer == BIGGEST}
    foreign_seats = 1
    assert {request.fault for request in last} == {FAILS_ALWAYS}
    assert len(seated) + len(last) + foreign_seats == QUANTITIES[BIGGEST]
    assert len({request.user_id for request in behind if request.offer == BIGGEST} - seated) > WAITLIST >= ALWAYS


def test_no_request_is_lost_or_moved_between_the_stages(plan: list[IssuanceRequest]) -> None:
    def others(requests: list[IssuanceRequest]) -> list[IssuanceRequest]:
        return [request for request in requests if request.fault != FAILS_ALWAYS]

    staged = [request for stage in stages(plan) for request in stage]
    assert Counter(staged) == Counter(plan)
    assert others(staged) == others(plan)


def test_the_same_seed_is_the_same_sale() -> None:
    assert plan_requests(500, QUANTITIES, Random("seed")) == plan_requests(500, QUANTITIES, Random("seed"))


@pytest.mark.parametrize(("users", "quantities"), [(100, [MIN_QUANTITY_FOR_FAULTS - 1, 5]), (40, [36, 1]), (20, [50])])
def test_a_sale_too_small_for_faults_has_none(users: int, quantities: list[int]) -> None:
    plan = plan_requests(users, quantities, Random(1))
    assert not [request for request in plan if request.fault]
    assert stages(plan) == [plan]


def test_in_a_small_sale_half_of_the_early_requests_fail_once() -> None:
    before, last, _ = stages(plan_requests(100, [MIN_QUANTITY_FOR_FAULTS, 5], Random(1)))
    seated = {request for request in before if request.offer == 0}
    assert Counter(request.fault for request in seated) == {None: 13, FAILS_ONCE: 13}
    assert len(last) == ALWAYS


def test_one_user_and_one_coupon_are_a_sale() -> None:
    assert plan_requests(1, [1], Random(1)) == [IssuanceRequest(1, 0)]


def test_only_the_biggest_coupon_has_a_waitlist() -> None:
    assert [offer.waitlist for offer in offers(QUANTITIES)] == [0, WAITLIST, 0]
    assert [offer.quantity for offer in offers(QUANTITIES)] == list(QUANTITIES)
