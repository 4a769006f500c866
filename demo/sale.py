"""The sale: which coupons there are, who asks for which one in which order, and whose issuing is made to fail."""

from collections.abc import Sequence
from operator import itemgetter
from random import Random
from typing import NamedTuple

SEED = "first come, first served"  # the same sale each time
#: connections that the users share; so many asks may overtake one another
CONNECTIONS = 150
TWICE = 0.05
#: a repeat follows its first ask at the latest after so many others
REPEAT_WITHIN = 500

#: PostgreSQL raises division_by_zero in the first attempt, or in each of the three that a request has
FAILS_ONCE, FAILS_THRICE = "22012 1", "22012 3"
#: how many fail so; half of the early ones at most fail once, so that others are issued meanwhile
ONCE, THRICE = 20, 3
#: seats of the biggest coupon below which nothing is made to fail: all who fail once might by chance come last then
FEWEST = 30
#: users let into the line beyond the quantity of the biggest coupon: they get the seats that the dead give up
WAITLIST = 5


class Offer(NamedTuple):
    """A coupon to be made."""

    quantity: int
    waitlist: int

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.quantity:,} to give away"


class Ask(NamedTuple):
    """One press of the button: `offer` is the coupon's place in the list of offers."""

    user_id: int
    offer: int
    fault: str | None = None


class Sale(NamedTuple):
    """What is to happen: coupons by their quantities, and who asks; the last user asks from outside."""

    quantities: Sequence[int]
    asks: Sequence[Ask]
    outsider: int


def planned(users: int, quantities: Sequence[int]) -> Sale:
    """A sale of coupons of these quantities to so many users."""
    return Sale(quantities, asks(users, quantities, Random(SEED)), users + 1)


def offers(quantities: Sequence[int]) -> list[Offer]:
    """The coupons; the biggest is the one with failures, so it has the waitlist."""
    return [Offer(quantity, WAITLIST if at == biggest(quantities) else 0) for at, quantity in enumerate(quantities)]


def biggest(quantities: Sequence[int]) -> int:
    """The place of the biggest coupon in the list."""
    return quantities.index(max(quantities))


def asks(users: int, quantities: Sequence[int], randomly: Random) -> list[Ask]:
    """Who asks in which order: users 1…n, each for one coupon, the bigger the likelier, some of them twice."""
    wanted = randomly.choices(range(len(quantities)), weights=quantities, k=users)
    first = [Ask(user_id, offer) for user_id, offer in enumerate(wanted, 1)]
    faults = _faults(first, quantities, randomly)
    patient = [ask.user_id for ask in first if ask not in faults]
    impatient = set(randomly.sample(patient, round(users * TWICE)))
    return _with_repeats([ask._replace(fault=faults.get(ask)) for ask in first], impatient, randomly)


def stages(asks: Sequence[Ask]) -> list[list[Ask]]:
    """The asks in parts; each begins when all of the one before have been answered.

    Those who will give their seats up ask alone: nobody overtakes them, so their seats are the last, and whoever asks
    for the coupon next stands behind them.
    """
    last = [ask for ask in asks if ask.fault == FAILS_THRICE]
    at = asks.index(last[0]) if last else len(asks)
    parts = [list(asks[:at]), last, [ask for ask in asks[at:] if ask not in last]]
    return [part for part in parts if part]


def _faults(first: Sequence[Ask], quantities: Sequence[int], randomly: Random) -> dict[Ask, str]:
    """Those with the last seats of the biggest coupon lose them, some before them fail once; without a queue nobody."""
    line = [ask for ask in first if ask.offer == biggest(quantities)]
    seats = max(quantities) - 1  # one is the outsider's
    if seats < FEWEST - 1 or len(line) <= seats + WAITLIST:
        return {}
    early, last = line[: seats - THRICE], line[seats - THRICE : seats]
    once = randomly.sample(early, min(ONCE, len(early) // 2))
    return dict.fromkeys(once, FAILS_ONCE) | dict.fromkeys(last, FAILS_THRICE)


def _with_repeats(first: Sequence[Ask], impatient: set[int], randomly: Random) -> list[Ask]:
    placed = list(enumerate(first))
    again = [(at + randomly.uniform(0, REPEAT_WITHIN), ask) for at, ask in placed if ask.user_id in impatient]
    return [ask for _, ask in sorted([*placed, *again], key=itemgetter(0))]
