"""Bodies that show, replay and discard dead letters."""

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from service.api.schemas.base import Id
from service.domain.dead_letter import DeadLetter, DeadLetterAction
from service.limits import MAX_REPLAY_SIZE
from service.timestamps import to_datetime, to_optional_datetime
from service.usecases.replay import ReplayResult


class RawRecord(Struct, frozen=True):
    """The bytes of a record in base64; `text` is its value if that is UTF-8, otherwise null."""

    key: str | None
    value: str | None
    text: str | None
    headers: list[tuple[str, str | None]]


class ActionView(Struct, frozen=True):
    """An entry of the audit trail; state and code are the request's after a replay."""

    action: str
    acted_by: str
    state: str | None
    code: str | None
    acted_at: datetime


class DeadLetterView(Struct, frozen=True):
    """A dead letter; partition and offset are those of its record in the original topic."""

    id: int
    state: str
    code: str
    partition: int | None
    offset: int | None
    coupon_id: int | None
    user_id: int | None
    request_id: str | None
    attempts: int
    first_error: str
    last_error: str
    appended_at: datetime
    dead_at: datetime
    forwarded_at: datetime | None
    record: RawRecord
    actions: list[ActionView]


class DeadLetterPage(Struct, frozen=True):
    """Dead letters, newest first; `next` is the cursor of the next page, null on the last."""

    dead_letters: list[DeadLetterView]
    next: str | None


class ReplayRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Selects the new dead letters to replay: of one coupon, with one code, at most `limit`."""

    coupon_id: Id | None = None
    code: Literal["poison", "exhausted"] | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_REPLAY_SIZE)] = 100
    dry_run: bool = False


class ReplayedView(Struct, frozen=True):
    """The request's state and code after a replay or dry run.

    If the replay is not possible, `why` is set and `state` is null.
    """

    id: int
    request_id: str | None
    state: str | None
    code: str | None
    why: str | None


class ReplayView(Struct, frozen=True):
    """The result of each dead letter, in the order of their offsets."""

    dry_run: bool
    replayed: list[ReplayedView]


def dead_letter_view(dead_letter: DeadLetter, actions: Sequence[DeadLetterAction]) -> DeadLetterView:
    """Render a dead letter with its raw record and the actions taken on it."""
    raw = dead_letter.raw
    try:
        value_text = None if raw.value is None else raw.value.decode()
    except UnicodeDecodeError:
        value_text = None
    return DeadLetterView(
        dead_letter.id,
        dead_letter.state,
        dead_letter.code,
        raw.log_position.partition,
        raw.log_position.offset,
        dead_letter.coupon_id,
        dead_letter.user_id,
        dead_letter.request_id,
        dead_letter.attempts,
        dead_letter.first_error,
        dead_letter.last_error,
        to_datetime(raw.appended_at_ms),
        to_datetime(dead_letter.dead_at_ms),
        to_optional_datetime(dead_letter.forwarded_at_ms),
        RawRecord(
            _base64(raw.key), _base64(raw.value), value_text, [(name, _base64(value)) for name, value in raw.headers]
        ),
        [
            ActionView(action.action, action.acted_by, action.state, action.code, to_datetime(action.acted_at_ms))
            for action in actions
        ],
    )


def replayed_view(result: ReplayResult) -> ReplayedView:
    """Render the result of one replay."""
    return ReplayedView(result.dead_letter_id, result.request_id, result.state, result.code, result.why)


def _base64(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()
