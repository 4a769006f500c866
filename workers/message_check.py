"""Checks messages of Celery's broker before Celery reads them.

Anyone who can write to the broker can put anything into a queue. Celery and kombu rely on the form of a message: one of
another form would end the worker, or hold one of its places for ever.
"""

from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from service.domain.retry import ISSUE_RETRY_POLICY
from service.limits import MAX_ID
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION
from workers.queues import Task

#: characters of a message's body; the longest one that this service sends has a tenth of them
_MAX_BODY_LENGTH = 65_536
_MAX_TEXT_LENGTH = 4_096

_Text = Annotated[str, Meta(max_length=_MAX_TEXT_LENGTH)]
_Name = Annotated[str, Meta(min_length=1, max_length=_MAX_TEXT_LENGTH)]
_Id = Annotated[int, Meta(ge=1, le=MAX_ID)]
_Partition = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Offset = Annotated[int, Meta(ge=0, le=MAX_ID)]
_LogPositions = Annotated[list[tuple[_Partition, _Offset]], Meta(min_length=1, max_length=MAX_FAILURES_PER_TRANSACTION)]
_Seconds = Annotated[float, Meta(gt=0)]
_Attempts = Annotated[int, Meta(ge=1, le=ISSUE_RETRY_POLICY.attempts)]

#: the arguments of tasks; a task that is not named here has none
ARGUMENTS: Mapping[Task, Any] = MappingProxyType(
    {
        Task.RETRY: tuple[Annotated[int, Meta(ge=1, le=2**15 - 1)], _LogPositions, _Attempts],
        Task.DECIDE_STANDBY: tuple[_Id],
    }
)


class InvalidMessage(Exception):
    """The message does not have the form that its receiver relies on: it is dropped."""


class _DeliveryInfo(Struct, frozen=True):
    exchange: _Text
    routing_key: _Text


class _Properties(Struct, frozen=True):
    delivery_tag: _Name
    delivery_info: _DeliveryInfo
    body_encoding: Literal["base64"] | None = None


class _Headers(Struct, frozen=True):
    #: kombu would expand a small body to any size; nothing here sends compressed messages
    compression: None = None


class _Message(Struct, frozen=True):
    """What kombu relies on in any message; fields that are not named are not looked at."""

    body: str
    properties: _Properties
    headers: _Headers
    content_type: _Text | None = msgspec.field(name="content-type", default=None)
    content_encoding: _Text | None = msgspec.field(name="content-encoding", default=None)


class _TaskHeaders(_Headers, frozen=True, kw_only=True):
    """What Celery relies on in the headers of a task."""

    task: Task
    id: _Name
    root_id: _Text | None = None
    parent_id: _Text | None = None
    group: None = None
    shadow: None = None
    retries: Annotated[int, Meta(ge=0, le=MAX_ID)] = 0
    eta: datetime | None = None
    expires: datetime | None = None
    #: seconds, hard and soft; null: those of celeryconfig.py
    timelimit: tuple[_Seconds | None, _Seconds | None] = (None, None)
    argsrepr: _Text = ""
    kwargsrepr: _Text = ""
    origin: _Text | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int = 0
    stamped_headers: list[_Text] | None = None
    stamps: dict[str, Any] = {}


class _TaskMessage(_Message, frozen=True, kw_only=True):
    body: Annotated[str, Meta(max_length=_MAX_BODY_LENGTH)]
    headers: _TaskHeaders
    content_type: Literal["application/json"] = msgspec.field(name="content-type")
    content_encoding: Literal["utf-8"] = msgspec.field(name="content-encoding")


class _Embedded(Struct, frozen=True):
    """Other tasks that Celery would start for this one: there are none."""

    callbacks: None = None
    errbacks: None = None
    chain: None = None
    chord: None = None


class _NoKeywords(Struct, frozen=True, forbid_unknown_fields=True):
    pass


def check_message(message: Any) -> None:
    """Raise InvalidMessage unless the message has the form on which kombu relies."""
    _convert(message, _Message)


def check_task_message(message: Any) -> None:
    """Raise InvalidMessage unless the message is a task of this service with arguments of its types."""
    checked: _TaskMessage = _convert(message, _TaskMessage)
    try:
        body = b64decode(checked.body, validate=True) if checked.properties.body_encoding else checked.body
        arguments, _, _ = msgspec.json.decode(body, type=tuple[list[Any], _NoKeywords, _Embedded])
        msgspec.convert(arguments, ARGUMENTS.get(checked.headers.task, tuple[()]))
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(f"arguments of {checked.headers.task}: {error}") from None


def _convert(message: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(message, kind)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(str(error)) from None
