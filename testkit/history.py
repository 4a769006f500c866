"""History of client answers: kept in memory and, on request, as a file for `coupons verify --history`."""

from collections import Counter
from pathlib import Path
from typing import Self

import msgspec

from service.verification.history import ClientAnswer


class TimedAnswer(ClientAnswer, frozen=True, kw_only=True):
    """A client answer with the HTTP status and the times of its call, in seconds since 1970 UTC."""

    #: None: no response
    status: int | None
    sent_at: float
    answered_at: float


class AnswerHistory:
    """Answers in the order in which they arrived, also written to `path`, one JSON object a line.

    The file is complete when the `with` block has ended; a crash may lose the last lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: list[TimedAnswer] = []
        #: answers by outcome: accepted, refused, unknown
        self.counts: Counter[str] = Counter()
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def add(self, answer: TimedAnswer) -> None:
        """Append an answer."""
        self._file.write(msgspec.json.encode(answer) + b"\n")
        self.answers.append(answer)
        self.counts[answer.outcome] += 1
