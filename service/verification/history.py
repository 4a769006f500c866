"""What clients were told, as they wrote it down: one JSON object a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from service.domain.errors import InvalidInput


class ClientAnswer(msgspec.Struct, frozen=True):
    """One call's answer as its client had it; unknown: no answer, or a 5xx."""

    user_id: int
    coupon_id: int
    outcome: Literal["accepted", "refused", "unknown"]
    code: str | None = None
    #: of the receipt, or of the first request where the answer was `duplicate`
    request_id: str | None = None


def read_history(path: Path) -> Iterator[ClientAnswer]:
    """The file's lines; raises Unreadable naming the first one that has another form."""
    decoder = msgspec.json.Decoder(ClientAnswer)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise InvalidInput(f"{path}, line {number}: {error}") from None
