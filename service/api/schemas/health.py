"""Bodies that show whether the process can work."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from service.domain.caller import Caller, Permission
from service.usecases.readiness import Readiness


class LivenessView(Struct, frozen=True):
    """The process answers."""

    status: Literal["ok"]


class ReadinessView(Struct, frozen=True):
    """Whether requests are accepted; parts in `faults` prevent it, parts in `degraded` make it slower.

    `alerts` and `reasons`, by name and by part, are for operators only.
    """

    ready: bool
    faults: list[str]
    degraded: list[str]
    alerts: dict[str, str] | UnsetType = UNSET
    reasons: dict[str, str] | UnsetType = UNSET


def readiness_view(readiness: Readiness, caller: Caller) -> ReadinessView:
    """Render what the caller may see of the API's readiness."""
    for_operators = (readiness.alerts, readiness.reasons) if Permission.READ_OPERATIONS in caller.permissions else ()
    return ReadinessView(not readiness.faults, readiness.faults, readiness.degraded, *for_operators)
