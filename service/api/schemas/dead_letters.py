"""Dead letters: as operators see them, and what they do with them."""

from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from service.api.schemas.base import Id, to_datetime
from service.domain.dead_letter import DeadLetter, DeadLetterAction
from service.usecases.replay import ReplayResult


class RawRecord(Struct, frozen=True):
    """A record's bytes in base64, and its value as text where it is UTF-8."""

    key: str | None
    value: str | None
    text: str | None
    headers: list[tuple[str, str | None]]


class ActionView(Struct, frozen=True):
    """One entry of the audit trail; state and code are what the request became by a replay."""

    action: str
    via: str
    state: str | None
    code: str | None
    acted_at: datetime


class DeadLetterView(Struct, frozen=True):
    """A dead letter; its partition and offset are those of the topic it comes from."""

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
    """Dead letters, the newest first; `next` is the cursor of the page that follows, null on the last."""

    dead_letters: list[DeadLetterView]
    next: str | None


class ReplayRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead letters to bring back: those of a coupon, with a code, at most so many."""

    coupon_id: Id | None = None
    code: Literal["poison", "exhausted"] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    dry_run: bool = False


class ReplayedView(Struct, frozen=True):
    """What came of a dead letter, or would: its request's state and code; null, with `why`, where it cannot be."""

    id: int
    request_id: str | None
    state: str | None
    code: str | None
    why: str | None


class ReplayView(Struct, frozen=True):
    """What came of a replay, letter by letter, in the order of their places."""

    dry_run: bool
    replayed: list[ReplayedView]


def dead_letter_view(dead_letter: DeadLetter, actions: Sequence[DeadLetterAction]) -> DeadLetterView:
    """A dead letter as operators see it."""
    raw = dead_letter.raw
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
        datetime.fromtimestamp(raw.appended_at_ms / 1000, UTC),
        datetime.fromtimestamp(dead_letter.dead_at_ms / 1000, UTC),
        to_datetime(dead_letter.forwarded_at_ms),
        RawRecord(
            _base64(raw.key), _base64(raw.value), _text(raw.value), [(name, _base64(at)) for name, at in raw.headers]
        ),
        [
            ActionView(one.action, one.via, one.state, one.code, datetime.fromtimestamp(one.acted_at_ms / 1000, UTC))
            for one in actions
        ],
    )


def replayed_view(done: ReplayResult) -> ReplayedView:
    """What came of a replay."""
    return ReplayedView(done.dead_letter_id, done.request_id, done.state, done.code, done.why)


def _base64(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
