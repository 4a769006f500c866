"""Plan of the sale: the coupons, who requests which one in which order, and whose requests fail on purpose."""

from collections.abc import Sequence
from operator import itemgetter
from random import Random
from typing import NamedTuple

#: the same seed makes the same sale
SEED = "first come, first served"
#: connections that all users share, and thus the number of requests that may overtake one another
CONNECTIONS = 150
#: share of the users who request their coupon a second time
REPEATING_SHARE = 0.05
#: at most so many other requests lie between a request and its repeat
REPEAT_WITHIN = 500

#: faults to inject: PostgreSQL raises division_by_zero in the first attempt, or in all three attempts of a request
FAILS_ONCE, FAILS_ALWAYS = "22012 1", "22012 3"
#: number of requests with each fault; at most half of the early ones fail once, so that others are issued meanwhile
ONCE, ALWAYS = 20, 3
#: without this many seats nothing fails: all requests that fail once might happen to be the last in line
MIN_QUANTITY_FOR_FAULTS = 30
#: users admitted beyond the quantity of the biggest coupon: they get the released seats of dead requests
WAITLIST = 5


class Offer(NamedTuple):
    """A coupon to be created."""

    quantity: int
    waitlist: int

    @property
    def name(self) -> str:
        """Name of the coupon."""
        return f"{self.quantity:,} seats"


class IssuanceRequest(NamedTuple):
    """A request by one user; `offer` is the coupon's index in the list of offers."""

    user_id: int
    offer: int
    fault: str | None = None


class Sale(NamedTuple):
    """Quantities of the coupons, the requests in their order, and the user whom a foreign producer's record names."""

    quantities: Sequence[int]
    requests: Sequence[IssuanceRequest]
    foreign_user: int


def plan_sale(users: int, quantities: Sequence[int]) -> Sale:
    """Plan a sale of coupons of these quantities to so many users."""
    return Sale(quantities, plan_requests(users, quantities, Random(SEED)), users + 1)


def offers(quantities: Sequence[int]) -> list[Offer]:
    """Return the coupons to create; the biggest has the failing requests, so it has the waitlist."""
    biggest = biggest_offer(quantities)
    return [Offer(quantity, WAITLIST if index == biggest else 0) for index, quantity in enumerate(quantities)]


def biggest_offer(quantities: Sequence[int]) -> int:
    """Return the index of the biggest coupon."""
    return quantities.index(max(quantities))


def plan_requests(users: int, quantities: Sequence[int], random: Random) -> list[IssuanceRequest]:
    """Return the requests of users 1 to n: one coupon each, the bigger the likelier, and some of them repeated."""
    chosen = random.choices(range(len(quantities)), weights=quantities, k=users)
    requests = [IssuanceRequest(user_id, offer) for user_id, offer in enumerate(chosen, 1)]
    faults = _choose_faults(requests, quantities, random)
    healthy = [request.user_id for request in requests if request not in faults]
    repeating = set(random.sample(healthy, round(users * REPEATING_SHARE)))
    placed = list(enumerate(request._replace(fault=faults.get(request)) for request in requests))
    repeats = [
        (index + random.uniform(0, REPEAT_WITHIN), request) for index, request in placed if request.user_id in repeating
    ]
    return [request for _, request in sorted([*placed, *repeats], key=itemgetter(0))]


def _choose_faults(
    requests: Sequence[IssuanceRequest], quantities: Sequence[int], random: Random
) -> dict[IssuanceRequest, str]:
    """Choose the requests that fail: those for the last seats always, some earlier ones once.

    They request the biggest coupon. None fails if the coupon has too few seats or too few users request it.
    """
    biggest = biggest_offer(quantities)
    line = [request for request in requests if request.offer == biggest]
    seats = max(quantities) - 1  # one seat goes to the foreign producer's user
    if seats < MIN_QUANTITY_FOR_FAULTS - 1 or len(line) <= seats + WAITLIST:
        return {}
    early, last = line[: seats - ALWAYS], line[seats - ALWAYS : seats]
    once = random.sample(early, min(ONCE, len(early) // 2))
    return dict.fromkeys(once, FAILS_ONCE) | dict.fromkeys(last, FAILS_ALWAYS)


def stages(requests: Sequence[IssuanceRequest]) -> list[list[IssuanceRequest]]:
    """Split the requests into stages; a stage begins when every request of the previous one is answered.

    The requests whose seats are released are a stage of their own: no other request overtakes them, so they hold the
    last seats, and the next requests for the coupon stand behind them.
    """
    failing = [request for request in requests if request.fault == FAILS_ALWAYS]
    first = requests.index(failing[0]) if failing else len(requests)
    rest = [request for request in requests[first:] if request not in failing]
    return [stage for stage in (list(requests[:first]), failing, rest) if stage]
