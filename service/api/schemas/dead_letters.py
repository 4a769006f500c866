"""Bodies that show, replay and discard dead letters."""

from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

from msgspec import Meta, Struct

from service.api.schemas.base import Count, Id, Reason, SafeId, Time
from service.domain import dead_letter
from service.domain.dead_letter import DeadLetter, DeadLetterAction, DeadLetterCode, DeadLetterState
from service.domain.request import RequestState
from service.limits import MAX_REPLAY_SIZE, MAX_VALUE_BYTES
from service.timestamps import to_datetime, to_optional_datetime
from service.usecases.replay import ReplayResult


class RawRecord(Struct, frozen=True):
    """The bytes of a record in base64; `text` is its value if that is UTF-8 of at most 65,536 bytes, otherwise null."""

    key: str | None
    value: str | None
    text: str | None
    headers: list[Annotated[list[str | None], Meta(min_length=2, max_length=2, description="name, value")]]


class ActionView(Struct, frozen=True):
    """An entry of the audit trail; state and code are the request's after a replay."""

    action: DeadLetterState
    acted_by: str
    state: RequestState | None
    code: Reason | None
    acted_at: Time


class DeadLetterSummary(Struct, frozen=True):
    """A dead letter; partition and offset are those of its record in the original topic. Lists cut errors off."""

    id: SafeId
    state: DeadLetterState
    code: Reason
    partition: Count | None
    offset: Count | None
    coupon_id: Id | None
    user_id: Id | None
    request_id: str | None
    attempts: Count
    first_error: str
    last_error: str
    appended_at: Time
    dead_at: Time
    forwarded_at: Time | None


class DeadLetterView(DeadLetterSummary, frozen=True):
    """A dead letter with its record and the latest 100 actions, oldest first."""

    record: RawRecord
    actions: list[ActionView]


class DeadLetterPage(Struct, frozen=True):
    """Dead letters without their records, newest first; `next` is the cursor of the next page, null on the last."""

    dead_letters: list[DeadLetterSummary]
    next: str | None


class ReplayRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Selects the new dead letters to replay: of one coupon, with one code, of these ids, at most `limit`."""

    coupon_id: Id | None = None
    code: DeadLetterCode | None = None
    ids: Annotated[list[SafeId], Meta(min_length=1, max_length=MAX_REPLAY_SIZE)] | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_REPLAY_SIZE)] = 100
    dry_run: bool = False


class ReplayedView(Struct, frozen=True):
    """The request's state and code after a replay or dry run.

    If the replay is not possible, `why` is set and `state` is null.
    """

    id: SafeId
    request_id: str | None
    state: RequestState | None
    code: Reason | None
    why: str | None


class ReplayView(Struct, frozen=True):
    """The result of each dead letter, in the order of their offsets."""

    dry_run: bool
    replayed: list[ReplayedView]


def summary_view(found: dead_letter.DeadLetterSummary) -> DeadLetterSummary:
    """Render a dead letter of a list."""
    return DeadLetterSummary(**_summary_fields(found))


def dead_letter_view(found: DeadLetter, actions: Sequence[DeadLetterAction]) -> DeadLetterView:
    """Render a dead letter with its raw record and the actions taken on it."""
    raw = found.raw
    value_text = None
    if raw.value is not None and len(raw.value) <= MAX_VALUE_BYTES:
        with suppress(UnicodeDecodeError):
            value_text = raw.value.decode()
    return DeadLetterView(
        **_summary_fields(found.summary),
        record=RawRecord(
            _base64(raw.key), _base64(raw.value), value_text, [[name, _base64(value)] for name, value in raw.headers]
        ),
        actions=[
            ActionView(action.action, action.acted_by, action.state, action.code, to_datetime(action.acted_at_ms))
            for action in actions
        ],
    )


def _summary_fields(found: dead_letter.DeadLetterSummary) -> dict[str, Any]:
    return {
        "id": found.id,
        "state": found.state,
        "code": found.code,
        "partition": found.log_position.partition,
        "offset": found.log_position.offset,
        "coupon_id": found.coupon_id,
        "user_id": found.user_id,
        "request_id": found.request_id,
        "attempts": found.attempts,
        "first_error": found.first_error,
        "last_error": found.last_error,
        "appended_at": to_datetime(found.appended_at_ms),
        "dead_at": to_datetime(found.dead_at_ms),
        "forwarded_at": to_optional_datetime(found.forwarded_at_ms),
    }


def replayed_view(result: ReplayResult) -> ReplayedView:
    """Render the result of one replay."""
    return ReplayedView(result.dead_letter_id, result.request_id, result.state, result.code, result.why)


def _base64(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()
