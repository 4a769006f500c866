"""The one tree of errors, cut by what the caller must do."""

from collections.abc import Iterable, Sequence


class CouponsError(Exception):
    """Something in the coupon service went wrong."""


class Misconfigured(CouponsError):
    """The settings do not allow a start: mend the environment, then start again."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("the configuration cannot be used:\n" + "\n".join(f"  - {fault}" for fault in faults))
        self.faults = tuple(faults)


class InvalidInput(CouponsError):
    """What was given has another form than it must have: mend it, then give it again."""


class NotFound(CouponsError):
    """There is nothing of the name that was given."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


class Conflict(CouponsError):
    """What was asked for does not fit what is there: read it again, then ask for something else."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


class Retryable(CouponsError):
    """Nothing is wrong with the request: the system is, for now."""


class Unavailable(Retryable):
    """A part the answer depends on is away: try again later."""

    def __init__(self, part: str, why: str) -> None:
        super().__init__(f"{part} is unavailable: {why}")
        self.part = part


class Fenced(Retryable):
    """Another issuer has moved these partitions: drop what was read of them and start from the database's offset."""

    def __init__(self, partitions: Iterable[int]) -> None:
        super().__init__(f"partitions {sorted(partitions)} were moved by another issuer")
        self.partitions = frozenset(partitions)
