"""What the users were told, call by call: counted while it happens and written down for the proof."""

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Self

import msgspec


class Outcome(StrEnum):
    """What a call's answer means to its user."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    #: no answer, or a 5xx: the request may have been accepted or not
    UNKNOWN = "unknown"


class Answer(NamedTuple):
    """What came back; no status when nothing did."""

    status: int | None
    outcome: Outcome
    code: str | None
    request_id: str | None


class Call(msgspec.Struct, frozen=True):
    """One call as the user saw it; times are seconds since 1970 UTC."""

    op: str
    user_id: int
    coupon_id: int
    t0: float
    t1: float
    status: int | None
    outcome: Outcome
    code: str | None
    request_id: str | None


class History:
    """Every call, in the order of the answers; also in a file, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[Call] = []
        self.counts: Counter[Outcome] = Counter()
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def add(self, call: Call) -> None:
        """Notes a call."""
        self._file.write(msgspec.json.encode(call) + b"\n")
        self.calls.append(call)
        self.counts[call.outcome] += 1
