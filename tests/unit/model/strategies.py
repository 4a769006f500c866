"""Hypothesis strategies: what can happen in a sale, and how likely it is."""

from enum import StrEnum

from hypothesis import strategies as st

from service.domain.coupon import Override
from tests.unit.model.system import UNKNOWN_COUPON, AppendResult, UngatedRecord
from tests.unit.model.write_failures import NO_FAILURES, InjectedFailures, WriteFailure


class CommitResult(StrEnum):
    """What a consumer learns about its commit."""

    ACKNOWLEDGED = "acknowledged"
    #: the commit succeeds without a response, and the consumer reads the same records again
    UNACKNOWLEDGED = "unacknowledged"
    #: the consumer is killed right before the commit
    KILLED = "killed"


class BackgroundEvent(StrEnum):
    """What else can happen."""

    #: every consumer starts at the database's offsets
    REBALANCE = "rebalance"
    #: the gate is emptied
    FLUSH = "flush"
    #: decisions and changes reach the gate
    SYNC_GATE = "sync gate"
    #: seats of requests that never reached the log are released
    SWEEP = "sweep"
    #: a dead letter is discarded
    DISCARD = "discard"


_TIMES_MS = st.none() | st.integers(0, 99)
#: most requests are for the first coupon, so that it sells out and gets standby requests
COUPONS = st.sampled_from((*[1] * 6, 2, 3))
COUPONS_AND_UNKNOWN = st.sampled_from((*[1] * 6, 2, 3, UNKNOWN_COUPON))
#: a subset of eight users in the order of their ids, each with probability one half
USERS = st.integers(1, 2**8 - 1).map(lambda bits: [user for user in range(1, 9) if bits >> user - 1 & 1])
APPEND_RESULTS = st.sampled_from((*[AppendResult.ACKNOWLEDGED] * 3, AppendResult.UNACKNOWLEDGED, *AppendResult))
UNGATED_RECORDS = st.sampled_from(UngatedRecord)
COMMIT_RESULTS = st.sampled_from((*[CommitResult.ACKNOWLEDGED] * 4, *CommitResult))
FAILURES = st.builds(InjectedFailures, st.sampled_from((*[WriteFailure.ISSUE] * 4, *WriteFailure)), USERS)
FAILURES_OR_NONE = st.just(NO_FAILURES) | FAILURES
#: limits of the standby requests that one transaction decides: too few, or practically all
STANDBY_LIMITS = st.sampled_from((1, 2, 1_000))
BATCH_SIZES = st.integers(1, 4)
#: paused, closed or open again, or another window
WINDOW_CHANGES = st.one_of(
    st.fixed_dictionaries({"override": st.sampled_from((Override.NONE, *Override))}),
    st.fixed_dictionaries({"opens_at_ms": _TIMES_MS, "closes_at_ms": _TIMES_MS}),
)
QUANTITY_CHANGES = st.fixed_dictionaries({"quantity": st.integers(1, 6)}, optional={"waitlist": st.integers(0, 8)})
QUANTITIES = st.tuples(*[st.integers(1, 3)] * 3)
WAITLISTS = st.sampled_from((0, 2, 8))
BACKGROUND_EVENTS = st.sampled_from(BackgroundEvent)
