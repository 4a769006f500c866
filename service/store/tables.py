"""The tables; they never leave this room, what leaves is a value of the domain."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Identity, Index, LargeBinary, SmallInteger, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, MetaData, SQLModel

from service.domain.request import FINAL_STATES, LIVE_STATES, RequestState

NAMES = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    }
)


class Table(SQLModel):
    """What every table shares: one metadata with one naming convention."""

    metadata = NAMES


def _moment(**options: Any) -> Any:
    """A column of type timestamptz."""
    return Field(sa_type=DateTime(timezone=True), **options)


def _big(**options: Any) -> Any:
    return Field(sa_type=BigInteger, **options)


def _generated_key() -> Any:
    return Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))


class CouponRow(Table, table=True):
    """A coupon and its counters; the counters are moved by the triggers on requests, never by a caller."""

    __tablename__ = "coupons"
    __table_args__ = (
        CheckConstraint("quantity >= 1", name="quantity"),
        CheckConstraint("waitlist >= 0", name="waitlist"),
        CheckConstraint("issued >= 0 AND held >= 0 AND issued + held <= quantity", name="never_over_issued"),
        CheckConstraint("standby >= 0", name="standby"),
        CheckConstraint("closes_at > opens_at", name="window"),
        CheckConstraint("override IN ('none', 'paused', 'closed')", name="override"),
        Index("coupons_standby", "id", postgresql_where=text("standby > 0")),
        {"postgresql_with": {"fillfactor": "50"}},
    )
    id: int | None = _generated_key()
    name: str
    quantity: int
    waitlist: int = Field(sa_column_kwargs={"server_default": "0"})
    issued: int = Field(sa_column_kwargs={"server_default": "0"})
    held: int = Field(sa_column_kwargs={"server_default": "0"})
    standby: int = Field(sa_column_kwargs={"server_default": "0"})
    opens_at: datetime | None = _moment()
    closes_at: datetime | None = _moment()
    override: str = Field(sa_column_kwargs={"server_default": "none"})
    version: int = Field(sa_column_kwargs={"server_default": "0"})
    created_at: datetime = _moment(sa_column_kwargs={"server_default": text("now()")})


class CouponChangeRow(Table, table=True):
    """A coupon's values from a place of its partition on; version 0 counts from the beginning."""

    __tablename__ = "coupon_changes"
    __table_args__ = (
        CheckConstraint("(version = 0) = (first_offset IS NULL)", name="first_offset"),
        Index("coupon_changes_unpublished", "changed_at", postgresql_where=text("published_at IS NULL")),
    )
    coupon_id: int = _big(primary_key=True, foreign_key="coupons.id")
    version: int = Field(primary_key=True)
    log_id: int | None = Field(sa_type=SmallInteger)
    partition: int | None
    first_offset: int | None = _big()
    quantity: int
    waitlist: int
    opens_at: datetime | None = _moment()
    closes_at: datetime | None = _moment()
    override: str
    changed_at: datetime = _moment(sa_column_kwargs={"server_default": text("now()")})
    #: when the gate was told
    published_at: datetime | None = _moment()


class LogRow(Table, table=True):
    """One life of a topic: a topic deleted and made again is another log with offsets of its own."""

    __tablename__ = "logs"
    id: int | None = Field(default=None, sa_column=Column(SmallInteger, Identity(always=True), primary_key=True))
    topic: str
    topic_id: str = Field(unique=True)


class OffsetRow(Table, table=True):
    """How far a partition has been decided; written in the transaction of the decisions themselves."""

    __tablename__ = "offsets"
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)
    log_id: int = Field(sa_type=SmallInteger, primary_key=True, foreign_key="logs.id")
    partition: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    next_offset: int = _big()
    #: every record that the broker appended before this moment has been decided
    watermark: datetime = _moment(sa_column_kwargs={"server_default": text("'epoch'")})


def _state_in(states: Iterable[RequestState]) -> str:
    return f"state IN ({', '.join(repr(state.value) for state in states)})"


#: the rows that occupy a user's place; queries use these very words, so that the partial indexes serve them
LIVE_ROWS = _state_in(LIVE_STATES)
_FINAL = _state_in(FINAL_STATES)


class RequestRow(Table, table=True):
    """A decided request; one row per record of the log, one live row per coupon and user."""

    __tablename__ = "requests"
    __table_args__ = (
        CheckConstraint(f"{LIVE_ROWS} OR state IN ('refused', 'dead')", name="state"),
        CheckConstraint("(state = 'issued') = (sequence IS NOT NULL)", name="sequence"),
        CheckConstraint("(state IN ('refused', 'dead')) = (code IS NOT NULL)", name="code"),
        CheckConstraint(f"({_FINAL}) = (decided_at IS NOT NULL)", name="decided_at"),
        Index("requests_one_live", "coupon_id", "user_id", unique=True, postgresql_where=text(LIVE_ROWS)),
        Index("requests_ended", "coupon_id", "user_id", postgresql_where=text(f"NOT ({LIVE_ROWS})")),
        Index(
            "requests_standby", "coupon_id", "log_id", "partition", "offset", postgresql_where=text("state = 'standby'")
        ),
    )
    log_id: int = Field(sa_type=SmallInteger, primary_key=True)
    partition: int = Field(primary_key=True)
    offset: int = _big(primary_key=True)
    coupon_id: int = _big()
    user_id: int = _big()
    request_id: str
    state: str
    code: str | None
    sequence: int | None = _big()
    attempts: int = Field(sa_type=SmallInteger)
    requested_at: datetime = _moment()
    decided_at: datetime | None = _moment()


class RetryRow(Table, table=True):
    """A held or standby request with its raw record; the Celery message is only a hint to look here."""

    __tablename__ = "retries"
    __table_args__ = (Index("retries_due", "next_attempt_at"),)
    log_id: int = Field(sa_type=SmallInteger, primary_key=True)
    partition: int = Field(primary_key=True)
    offset: int = _big(primary_key=True)
    key: bytes | None = Field(sa_type=LargeBinary)
    value: bytes | None = Field(sa_type=LargeBinary)
    headers: list[list[str | None]] = Field(sa_type=JSONB)
    appended_at: datetime = _moment()
    attempts: int = Field(sa_type=SmallInteger)
    #: null on standby: when a seat is free
    next_attempt_at: datetime | None = _moment()
    first_error: str | None
    error_type: str | None
    error_message: str | None


class DeadLetterRow(Table, table=True):
    """A request that was given up, or a record that could not be read; raw bytes kept."""

    __tablename__ = "dead_letters"
    __table_args__ = (
        CheckConstraint("state IN ('new', 'replayed', 'discarded')", name="state"),
        Index("dead_letters_origin", "log_id", "partition", "offset", unique=True),
        # the append time tells the lives of a topic apart that was deleted and made again
        Index(
            "dead_letters_foreign",
            "dlt_partition",
            "dlt_offset",
            "appended_at",
            unique=True,
            postgresql_where=text("log_id IS NULL"),
        ),
        Index("dead_letters_unforwarded", "id", postgresql_where=text("forwarded_at IS NULL")),
        Index("dead_letters_coupon", "coupon_id", "id"),
        Index("dead_letters_dead_at", "dead_at"),
    )
    id: int | None = _generated_key()
    #: null for a dead letter that another producer wrote to the dead-letter topic
    log_id: int | None = Field(sa_type=SmallInteger)
    partition: int | None
    offset: int | None = _big()
    key: bytes | None = Field(sa_type=LargeBinary)
    value: bytes | None = Field(sa_type=LargeBinary)
    headers: list[list[str | None]] = Field(sa_type=JSONB)
    appended_at: datetime = _moment()
    coupon_id: int | None = _big()
    user_id: int | None = _big()
    request_id: str | None
    code: str
    attempts: int = Field(sa_type=SmallInteger)
    first_error: str
    error_type: str
    error_message: str
    state: str = Field(sa_column_kwargs={"server_default": "new"})
    dead_at: datetime = _moment(sa_column_kwargs={"server_default": text("now()")})
    lease_until: datetime | None = _moment()
    forwarded_at: datetime | None = _moment()
    #: where the listener of the dead-letter topic read it
    dlt_partition: int | None
    dlt_offset: int | None = _big()


class DeadLetterActionRow(Table, table=True):
    """What an operator did with a dead letter, and what came of it."""

    __tablename__ = "dead_letter_actions"
    __table_args__ = (
        CheckConstraint("action IN ('replayed', 'discarded')", name="action"),
        Index("dead_letter_actions_letter", "dead_letter_id", "id"),
    )
    id: int | None = _generated_key()
    dead_letter_id: int = _big(foreign_key="dead_letters.id")
    action: str
    #: through which door: api or cli
    via: str
    #: the request's state and code after a replay
    state: str | None
    code: str | None
    acted_at: datetime = _moment(sa_column_kwargs={"server_default": text("now()")})


class HandoffRow(Table, table=True):
    """Work for Celery that follows from a decision, one row per poll, kind and partition; the outbox."""

    __tablename__ = "outbox"
    __table_args__ = (
        CheckConstraint("kind IN ('notify', 'gate')", name="kind"),
        Index("outbox_due", "kind", "next_attempt_at"),
        Index("outbox_delivery", "delivery_id", postgresql_where=text("delivery_id IS NOT NULL")),
        Index("outbox_tried", "kind", "id", postgresql_where=text("delivery_id IS NOT NULL")),
    )
    id: int | None = _generated_key()
    kind: str
    log_id: int = Field(sa_type=SmallInteger)
    partition: int
    first_offset: int = _big()
    last_offset: int = _big()
    #: the rows of the range that were decided at this moment are meant, no others
    decided_at: datetime = _moment()
    attempts: int = Field(sa_type=SmallInteger, sa_column_kwargs={"server_default": "0"})
    next_attempt_at: datetime = _moment(sa_column_kwargs={"server_default": text("now()")})
    lease_until: datetime | None = _moment()
    #: set at the first try, so that the same rows travel together under the same ids ever after
    delivery_id: UUID | None
