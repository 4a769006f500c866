"""Body of a verification's result."""

from collections.abc import Sequence

from msgspec import Struct

from service.api.schemas.base import Count
from service.verification.verify import Check


class CheckView(Struct, frozen=True):
    """One check of a promise; it is ok if every number named in `must_be_zero` is 0."""

    promise: str
    what: str
    ok: bool
    numbers: dict[str, Count]
    must_be_zero: list[str]
    #: what was found, in words, with places
    details: list[str]


class VerificationView(Struct, frozen=True):
    """All checks; `ok` if each of them is."""

    ok: bool
    checks: list[CheckView]


def verification_view(checks: Sequence[Check]) -> VerificationView:
    """Render the checks of a verification."""
    views = [
        CheckView(check.promise, check.what, check.ok, check.numbers, list(check.must_be_zero), list(check.details))
        for check in checks
    ]
    return VerificationView(all(check.ok for check in checks), views)
