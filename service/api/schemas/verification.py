"""The proof."""

from collections.abc import Sequence

from msgspec import Struct

from service.verification.verify import Check


class CheckView(Struct, frozen=True):
    """One promise, or part of it, with its numbers; those in `must_be_zero` decide it."""

    promise: str
    what: str
    ok: bool
    numbers: dict[str, int]
    must_be_zero: list[str]


class VerificationView(Struct, frozen=True):
    """The proof."""

    ok: bool
    checks: list[CheckView]


def verification_view(checks: Sequence[Check]) -> VerificationView:
    """The proof."""
    views = [CheckView(c.promise, c.what, c.ok, c.numbers, list(c.must_be_zero)) for c in checks]
    return VerificationView(all(check.ok for check in checks), views)
