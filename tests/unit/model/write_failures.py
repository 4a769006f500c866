"""Failures that the model injects into the writes of some users' rows."""

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import NamedTuple

from service.domain.decide import Outcome
from service.domain.failures import classify
from service.domain.request import RequestState
from service.usecases.batch_bisect import Failures


class WriteFailure(StrEnum):
    """What fails."""

    #: writing the row of an issued request; any other state can be written
    ISSUE = "issue"
    #: writing the row, whatever was decided
    ROW = "row"
    #: the database becomes unavailable: the whole transaction is rolled back
    SYSTEM = "system"


class InjectedFailures(NamedTuple):
    """One kind of failure for some users."""

    kind: WriteFailure
    users: Collection[int]

    def raise_for(self, outcomes: Iterable[Outcome]) -> None:
        """Raise if the write of these outcomes fails: RowWriteError, or ConnectionError for the whole database."""
        states = {outcome.state for outcome in outcomes if outcome.request.user_id in self.users}
        if states and self.kind is WriteFailure.SYSTEM:
            raise ConnectionError
        if RequestState.ISSUED in states or (states and self.kind is WriteFailure.ROW):
            raise RowWriteError

    def probe(self, outcomes: Iterable[Outcome]) -> Failures:
        """Return the failure of each outcome that cannot be written even alone, by request id."""
        found = {}
        for outcome in outcomes:
            try:
                self.raise_for([outcome])
            except RowWriteError as error:
                found[outcome.request.request_id] = classify(error)
        return found


class RowWriteError(Exception):
    """The write of one row failed; other rows can be written."""


NO_FAILURES = InjectedFailures(WriteFailure.ISSUE, ())
