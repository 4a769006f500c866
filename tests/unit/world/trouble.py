"""What can go wrong with the write of a user's row."""

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import NamedTuple

from service.domain.decide import Outcome
from service.domain.failures import classify
from service.domain.request import RequestState
from service.usecases.batch_bisect import Failures


class Trouble(StrEnum):
    """A kind of failure."""

    #: to issue it fails by itself
    ISSUE = "issue"
    #: its row cannot be written, whatever was decided
    ROW = "row"
    #: the database goes away: nothing of the transaction stays
    SYSTEM = "system"


class Troubles(NamedTuple):
    """The failure that is waiting for some users."""

    kind: Trouble
    users: Collection[int]

    def strike(self, outcomes: Iterable[Outcome]) -> None:
        """Fails the write of these outcomes, where one is a user's it waits for; a ConnectionError is the system's."""
        states = {outcome.state for outcome in outcomes if outcome.request.user_id in self.users}
        if states and self.kind is Trouble.SYSTEM:
            raise ConnectionError
        if RequestState.ISSUED in states or (states and self.kind is Trouble.ROW):
            raise SpoiltError

    def tell(self, outcomes: Iterable[Outcome]) -> Failures:
        """Which of these outcomes cannot be written alone."""
        found = {}
        for outcome in outcomes:
            try:
                self.strike([outcome])
            except SpoiltError as spoilt:
                found[outcome.request.request_id] = classify(spoilt)
        return found


class SpoiltError(Exception):
    """A write that failed by itself."""


NONE = Troubles(Trouble.ISSUE, ())
