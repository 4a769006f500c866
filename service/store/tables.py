"""The tables. They are used in this package only; its functions return values of the domain."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Identity, Index, LargeBinary, SmallInteger, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, MetaData, SQLModel

from service.domain.failures import UNVERIFIED
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
    """Base of every table: one metadata with one naming convention."""

    metadata = NAMES


def _timestamp(**options: Any) -> Any:
    """A column of type timestamptz."""
    return Field(sa_type=DateTime(timezone=True), **options)


def _big(**options: Any) -> Any:
    return Field(sa_type=BigInteger, **options)


def _generated_key() -> Any:
    return Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))


class CouponRow(Table, table=True):
    """A coupon and its counters, which only the triggers on requests change."""

    __tablename__ = "coupons"
    __table_args__ = (
        CheckConstraint("quantity >= 1", name="quantity"),
        CheckConstraint("waitlist >= 0", name="waitlist"),
        CheckConstraint("issued >= 0 AND held >= 0 AND issued + held <= quantity", name="never_over_issued"),
        CheckConstraint("standby >= 0", name="standby"),
        CheckConstraint("closes_at > opens_at", name="window"),
        CheckConstraint("override IN ('none', 'paused', 'closed')", name="override"),
        CheckConstraint(
            "archived_at IS NULL OR override = 'closed' OR (closes_at IS NOT NULL AND closes_at <= archived_at)",
            name="archived",
        ),
        Index("coupons_unarchived", "id", postgresql_where=text("archived_at IS NULL")),
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
    opens_at: datetime | None = _timestamp()
    closes_at: datetime | None = _timestamp()
    override: str = Field(sa_column_kwargs={"server_default": "none"})
    version: int = Field(sa_column_kwargs={"server_default": "0"})
    created_at: datetime = _timestamp(sa_column_kwargs={"server_default": text("now()")})
    #: when an operator last changed it
    updated_at: datetime = _timestamp(sa_column_kwargs={"server_default": text("now()")})
    #: since when lists leave it out
    archived_at: datetime | None = _timestamp()


class CouponChangeRow(Table, table=True):
    """A coupon's values from a position of its partition on; version 0 applies from the beginning."""

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
    name: str
    quantity: int
    waitlist: int
    opens_at: datetime | None = _timestamp()
    closes_at: datetime | None = _timestamp()
    override: str
    archived_at: datetime | None = _timestamp()
    #: who made the change: an API key, or a user of the commands
    changed_by: str
    changed_at: datetime = _timestamp(sa_column_kwargs={"server_default": text("now()")})
    #: when the gate received them
    published_at: datetime | None = _timestamp()


class LogRow(Table, table=True):
    """A log: one topic id of Kafka. A topic that was deleted and created again is another log with its own offsets."""

    __tablename__ = "logs"
    id: int | None = Field(default=None, sa_column=Column(SmallInteger, Identity(always=True), primary_key=True))
    __table_args__ = (Index("logs_one_open", "topic", unique=True, postgresql_where=text("closed_at IS NULL")),)
    topic: str
    topic_id: str = Field(unique=True)
    adopted_by: str
    adopted_at: datetime = _timestamp(sa_column_kwargs={"server_default": text("now()")})
    #: another log was adopted; the offsets of this one do not move any more
    closed_at: datetime | None = _timestamp()


class OffsetRow(Table, table=True):
    """The checkpoint of a partition, written in the transaction of the decisions."""

    __tablename__ = "offsets"
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)
    log_id: int = Field(sa_type=SmallInteger, primary_key=True, foreign_key="logs.id")
    partition: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    next_offset: int = _big()
    #: the sum of all moves by the issuer and `coupons log skip`: another next_offset was written by hand at some time
    advanced_to: int = _big()
    #: every record that the broker appended before this moment has been decided
    watermark: datetime = _timestamp(sa_column_kwargs={"server_default": text("'epoch'")})
    #: the log is closed: next_offset is the closing offset
    closed: bool = Field(sa_column_kwargs={"server_default": text("'false'")})


class LostRangeRow(Table, table=True):
    """Accepted records that no issuer can decide, because they were deleted before: recorded by an operator."""

    __tablename__ = "lost_ranges"
    __table_args__ = (
        CheckConstraint("end_offset > first_offset", name="end_offset"),
        Index("lost_ranges_partition", "partition", "recorded_at"),
    )
    id: int | None = _generated_key()
    log_id: int = Field(sa_type=SmallInteger, foreign_key="logs.id")
    partition: int
    first_offset: int = _big()
    #: the first offset after the range; None: everything that a deleted log held from first_offset on
    end_offset: int | None = Field(sa_type=BigInteger)
    reason: str
    recorded_by: str
    recorded_at: datetime = _timestamp(sa_column_kwargs={"server_default": text("now()")})


def _state_in(states: Iterable[RequestState]) -> str:
    return f"state IN ({', '.join(repr(state.value) for state in states)})"


#: the condition for live rows; queries use exactly this text, so that the partial indexes apply
LIVE_ROWS = _state_in(LIVE_STATES)
#: the unique index that allows a user one live row of a coupon
ONE_LIVE = "requests_one_live"
#: True for every row. A query for all rows of a coupon has it, so that PostgreSQL finds them by both partial indexes.
LIVE_OR_ENDED_ROWS = f"({LIVE_ROWS} OR NOT ({LIVE_ROWS}))"
_FINAL = _state_in(FINAL_STATES)


class RequestRow(Table, table=True):
    """A request that the issuer has read, in any state: at most one row per record, and one live per coupon and user.

    Redeliveries and records that cannot be decoded have no row.
    """

    __tablename__ = "requests"
    __table_args__ = (
        CheckConstraint(f"{LIVE_ROWS} OR state IN ('refused', 'dead')", name="state"),
        CheckConstraint("(state = 'issued') = (sequence IS NOT NULL)", name="sequence"),
        CheckConstraint("(state IN ('refused', 'dead')) = (code IS NOT NULL)", name="code"),
        CheckConstraint(f"({_FINAL}) = (decided_at IS NOT NULL)", name="decided_at"),
        Index(ONE_LIVE, "coupon_id", "user_id", unique=True, postgresql_where=text(LIVE_ROWS)),
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
    requested_at: datetime = _timestamp()
    decided_at: datetime | None = _timestamp()


class RetryRow(Table, table=True):
    """A held or standby request with its raw record."""

    __tablename__ = "retries"
    __table_args__ = (Index("retries_due", "next_attempt_at"),)
    log_id: int = Field(sa_type=SmallInteger, primary_key=True)
    partition: int = Field(primary_key=True)
    offset: int = _big(primary_key=True)
    key: bytes | None = Field(sa_type=LargeBinary)
    value: bytes | None = Field(sa_type=LargeBinary)
    headers: list[list[str | None]] = Field(sa_type=JSONB)
    appended_at: datetime = _timestamp()
    attempts: int = Field(sa_type=SmallInteger)
    #: null on standby, where a free seat starts the attempt
    next_attempt_at: datetime | None = _timestamp()
    first_error: str | None
    error_type: str | None
    error_message: str | None


class FailedAttemptRow(Table, table=True):
    """A failed attempt to issue a request: operators see it in the history, and no decision reads it."""

    __tablename__ = "failed_attempts"
    log_id: int = Field(sa_type=SmallInteger, primary_key=True)
    partition: int = Field(primary_key=True)
    offset: int = _big(primary_key=True)
    #: which attempt of the request it was, from 1
    attempt: int = Field(sa_type=SmallInteger, primary_key=True)
    failed_at: datetime = _timestamp()
    error_type: str
    error_message: str
    #: why the request is dead from then on; null: it is retried
    dead_code: str | None


#: the condition for dead letters of records with an unverified request id that no operator has replayed or discarded
UNVERIFIED_ROWS = f"error_type = '{UNVERIFIED}' AND state = 'new' AND log_id IS NOT NULL"


class DeadLetterRow(Table, table=True):
    """A request that used all attempts, or a record that could not be decoded or written, with its raw bytes.

    A foreign one, which another producer wrote to the dead-letter topic, has code `poison` too.
    """

    __tablename__ = "dead_letters"
    __table_args__ = (
        CheckConstraint("state IN ('new', 'replayed', 'discarded')", name="state"),
        Index("dead_letters_origin", "log_id", "partition", "offset", unique=True),
        # the append time distinguishes the records of a topic that was deleted and created again
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
        Index("dead_letters_new", "code", postgresql_where=text("state = 'new'")),
        Index("dead_letters_unverified", "id", postgresql_where=text(UNVERIFIED_ROWS)),
    )
    id: int | None = _generated_key()
    #: null for a dead letter that another producer wrote to the dead-letter topic
    log_id: int | None = Field(sa_type=SmallInteger)
    partition: int | None
    offset: int | None = _big()
    key: bytes | None = Field(sa_type=LargeBinary)
    value: bytes | None = Field(sa_type=LargeBinary)
    headers: list[list[str | None]] = Field(sa_type=JSONB)
    appended_at: datetime = _timestamp()
    coupon_id: int | None = _big()
    user_id: int | None = _big()
    request_id: str | None
    code: str
    attempts: int = Field(sa_type=SmallInteger)
    first_error: str
    error_type: str
    error_message: str
    state: str = Field(sa_column_kwargs={"server_default": "new"})
    dead_at: datetime = _timestamp(sa_column_kwargs={"server_default": text("now()")})
    lease_until: datetime | None = _timestamp()
    forwarded_at: datetime | None = _timestamp()
    #: where the listener of the dead-letter topic read it
    dlt_partition: int | None
    dlt_offset: int | None = _big()


class DeadLetterActionRow(Table, table=True):
    """An operator's action on a dead letter, and its result."""

    __tablename__ = "dead_letter_actions"
    __table_args__ = (
        CheckConstraint("action IN ('replayed', 'discarded')", name="action"),
        Index("dead_letter_actions_letter", "dead_letter_id", "id"),
    )
    id: int | None = _generated_key()
    dead_letter_id: int = _big(foreign_key="dead_letters.id")
    action: str
    #: who acted: an API key, or a user of the commands
    acted_by: str
    #: the request's state and code after a replay
    state: str | None
    code: str | None
    acted_at: datetime = _timestamp(sa_column_kwargs={"server_default": text("now()")})


class OutboxRow(Table, table=True):
    """Work for Celery that follows from decisions: one row per kind and range of at most 500 offsets."""

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
    #: selects the requests of the range with exactly this decided_at
    decided_at: datetime = _timestamp()
    attempts: int = Field(sa_type=SmallInteger, sa_column_kwargs={"server_default": "0"})
    next_attempt_at: datetime = _timestamp(sa_column_kwargs={"server_default": text("now()")})
    lease_until: datetime | None = _timestamp()
    #: set at the first attempt, so that the same entries are delivered under the same id in every later attempt
    delivery_id: UUID | None
    #: the last attempt that failed, and why
    failed_at: datetime | None = _timestamp()
    error: str | None


class NoticeRow(Table, table=True):
    """An entry of the outbox whose decisions a notice has delivered, and how the receiver answered."""

    __tablename__ = "notices"
    log_id: int = Field(sa_type=SmallInteger, primary_key=True)
    partition: int = Field(primary_key=True)
    first_offset: int = _big(primary_key=True)
    decided_at: datetime = _timestamp(primary_key=True)
    last_offset: int = _big()
    delivery_id: UUID
    attempts: int = Field(sa_type=SmallInteger)
    delivered_at: datetime = _timestamp(sa_column_kwargs={"server_default": text("now()")})
    #: the HTTP status of the answer
    status: int = Field(sa_type=SmallInteger)
    #: the last attempt that failed, and why
    failed_at: datetime | None = _timestamp()
    error: str | None


class RequestIdKeyRow(Table, table=True):
    """A key of REQUEST_ID_KEYS that an issuer verifies or that signs; the key itself is in no table."""

    __tablename__ = "request_id_keys"
    fingerprint: str = Field(primary_key=True)
    #: when the first issuer was started with it
    announced_at: datetime = _timestamp(sa_column_kwargs={"server_default": text("now()")})
    #: since when processes sign with it; null: it only verifies
    signs_since: datetime | None = _timestamp()
    #: an id that it signs later is one of another producer; null: it has no end
    ends_at: datetime | None = _timestamp()
    #: when a record with such an id was last read, exact to a minute
    late_id_at: datetime | None = _timestamp()


class IdempotencyKeyRow(Table, table=True):
    """The key with which a caller created a coupon, and what it sent with it."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("idempotency_keys_created_at", "created_at"),)
    #: as in coupon_changes.changed_by
    caller: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    fingerprint: bytes = Field(sa_type=LargeBinary)
    coupon_id: int = _big(foreign_key="coupons.id")
    created_at: datetime = _timestamp(sa_column_kwargs={"server_default": text("now()")})


class WriteCheckRow(Table, table=True):
    """The last write by which processes of one kind checked that the database accepts writes."""

    __tablename__ = "write_checks"
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)
    process: str = Field(primary_key=True)
    written_at: datetime = _timestamp()


class VerificationRow(Table, table=True):
    """A proof that ended: whether every promise held."""

    __tablename__ = "verifications"
    __table_args__ = (Index("verifications_latest", "coupon_id", "id"),)
    id: int | None = _generated_key()
    #: null: of all coupons
    coupon_id: int | None = _big()
    ok: bool
    ended_at: datetime = _timestamp(sa_column_kwargs={"server_default": text("now()")})


class ApiKeyRow(Table, table=True):
    """An API key: of its text only the beginning and a hash are stored."""

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint("role IN ('on_behalf', 'read', 'operate', 'admin')", name="role"),)
    prefix: str = Field(primary_key=True)
    digest: bytes = Field(sa_type=LargeBinary, unique=True)
    owner: str
    role: str
    created_by: str
    created_at: datetime = _timestamp(sa_column_kwargs={"server_default": text("now()")})
    expires_at: datetime | None = _timestamp()
    revoked_by: str | None
    revoked_at: datetime | None = _timestamp()
    #: exact to a minute
    last_used_at: datetime | None = _timestamp()
