"""What clients were answered, as they recorded it: one JSON object per line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from service.domain.errors import InvalidInput


class ClientAnswer(msgspec.Struct, frozen=True):
    """The response to one call as its client received it; outcome unknown means no response, or a 5xx."""

    user_id: int
    coupon_id: int
    outcome: Literal["accepted", "refused", "unknown"]
    code: str | None = None
    #: the accepted request, or the first request if the answer was `duplicate`
    request_id: str | None = None


def read_history(path: Path) -> Iterator[ClientAnswer]:
    """Yield the answers of a file; raise InvalidInput naming the first line that has another format."""
    decoder = msgspec.json.Decoder(ClientAnswer)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise InvalidInput(f"{path}, line {number}: {error}") from None
