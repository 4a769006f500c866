"""The sale: which coupons there are, who asks for which one in which order, and whose issuing is made to fail."""

from collections.abc import Sequence
from operator import itemgetter
from random import Random
from typing import NamedTuple

#: connections that the users share; so many asks may overtake one another
CONNECTIONS = 150
TWICE = 0.05
#: a repeat follows its first ask at the latest after so many others
REPEAT_WITHIN = 500

#: PostgreSQL raises division_by_zero in the first attempt, or in every one
FAILS_ONCE, FAILS_ALWAYS = "22012 1", "22012 9"
FAULTS = (FAILS_ALWAYS,) * 3 + (FAILS_ONCE,) * 20
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


def offers(quantities: Sequence[int]) -> list[Offer]:
    """The coupons; the biggest is the one with failures, so it has the waitlist."""
    return [Offer(quantity, WAITLIST if at == biggest(quantities) else 0) for at, quantity in enumerate(quantities)]


def biggest(quantities: Sequence[int]) -> int:
    """The place of the biggest coupon in the list."""
    return quantities.index(max(quantities))


def asks(users: int, quantities: Sequence[int], randomly: Random) -> list[Ask]:
    """Who asks in which order: users 1…n, each for one coupon, the bigger the likelier, some of them twice."""
    wanted = randomly.choices(range(len(quantities)), weights=quantities, k=users)
    impatient = set(randomly.sample(range(1, users + 1), round(users * TWICE)))
    first = [Ask(user_id, offer) for user_id, offer in enumerate(wanted, 1)]
    chosen = [ask for ask in _sure_of_a_seat(first, quantities) if ask.user_id not in impatient]
    faults = dict(zip(randomly.sample(chosen, min(len(FAULTS), len(chosen))), FAULTS, strict=False))
    return _with_repeats([ask._replace(fault=faults.get(ask)) for ask in first], impatient, randomly)


def _sure_of_a_seat(first: Sequence[Ask], quantities: Sequence[int]) -> list[Ask]:
    """The asks for the biggest coupon that find a free seat whatever overtakes them, with as much again to spare."""
    at = biggest(quantities)
    return [ask for ask in first if ask.offer == at][: max(0, (quantities[at] - CONNECTIONS) // 2)]


def _with_repeats(first: Sequence[Ask], impatient: set[int], randomly: Random) -> list[Ask]:
    placed = list(enumerate(first))
    again = [(at + randomly.uniform(0, REPEAT_WITHIN), ask) for at, ask in placed if ask.user_id in impatient]
    return [ask for _, ask in sorted([*placed, *again], key=itemgetter(0))]
