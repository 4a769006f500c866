"""Converts between milliseconds since 1970 UTC, which the domain uses, and datetime, which PostgreSQL and JSON use."""

from datetime import UTC, datetime

from service.limits import MAX_TIMESTAMP_MS


def to_datetime(at_ms: int) -> datetime:
    """Return the UTC datetime of milliseconds since 1970."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def to_optional_datetime(at_ms: int | None) -> datetime | None:
    """Return to_datetime(at_ms), or None for None."""
    return None if at_ms is None else to_datetime(at_ms)


def to_milliseconds(at: datetime) -> int:
    """Return milliseconds since 1970 of an aware datetime, rounded to the nearest."""
    return round(at.timestamp() * 1000)


def to_storable_milliseconds(name: str, at: datetime) -> int:
    """Return milliseconds since 1970 UTC; raise ValueError for a time that the database cannot store."""
    at_ms = to_milliseconds(at)
    if not 0 <= at_ms <= MAX_TIMESTAMP_MS:
        raise ValueError(f"{name} must lie between the years 1970 and 9998")
    return at_ms
