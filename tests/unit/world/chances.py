"""What may come, and how likely it is."""

from enum import StrEnum

from hypothesis import strategies as st

from service.domain.coupon import Override
from tests.unit.world.trouble import NONE, Trouble, Troubles
from tests.unit.world.world import UNKNOWN, Append, Stray


class Commit(StrEnum):
    """What a consumer learns of its commit."""

    HEARD = "heard"
    #: it is made, and the consumer comes again with the same records
    UNHEARD = "unheard"
    #: killed right before it
    KILLED = "killed"


class Meanwhile(StrEnum):
    """What else happens."""

    #: every consumer is placed where the database stands
    REBALANCE = "rebalance"
    #: the gate is emptied
    FLUSH = "flush"
    #: the gate hears of decisions and changes
    TELL_GATE = "tell gate"
    #: seats of requests that never reached the log are freed
    SWEEP = "sweep"
    #: a dead letter is put away
    DISCARD = "discard"


_MOMENTS = st.none() | st.integers(0, 99)
#: the first coupon is wanted most, so that its line grows
COUPONS = st.sampled_from((*[1] * 6, 2, 3))
COUPONS_OR_NONE = st.sampled_from((*[1] * 6, 2, 3, UNKNOWN))
#: users in the order of their numbers, each as likely as not
USERS = st.integers(1, 2**8 - 1).map(lambda bits: [user for user in range(1, 9) if bits >> user - 1 & 1])
APPENDS = st.sampled_from((*[Append.ACKNOWLEDGED] * 3, Append.UNHEARD, *Append))
STRAYS = st.sampled_from(Stray)
COMMITS = st.sampled_from((*[Commit.HEARD] * 4, *Commit))
FAILURES = st.builds(Troubles, st.sampled_from((*[Trouble.ISSUE] * 4, *Trouble)), USERS)
TROUBLES = st.just(NONE) | FAILURES
#: how many on standby one transaction decides: too few, or as good as all
AT_ONCE = st.sampled_from((1, 2, 1_000))
FEW = st.integers(1, 4)
#: paused, closed or open again, or another window
HOURS = st.one_of(
    st.fixed_dictionaries({"override": st.sampled_from((Override.NONE, *Override))}),
    st.fixed_dictionaries({"opens_at_ms": _MOMENTS, "closes_at_ms": _MOMENTS}),
)
QUANTITIES = st.fixed_dictionaries({"quantity": st.integers(1, 6)}, optional={"waitlist": st.integers(0, 8)})
OFFERS = st.tuples(*[st.integers(1, 3)] * 3)
WAITLISTS = st.sampled_from((0, 2, 8))
MEANWHILE = st.sampled_from(Meanwhile)
