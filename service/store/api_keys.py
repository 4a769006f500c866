"""Queries on API keys."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from service.domain.api_key import ApiKey, NewKey
from service.domain.caller import Role

_COLUMNS = "prefix, owner, role, created_at, created_by, expires_at, revoked_at, last_used_at"


def insert(tx: Connection, new: NewKey, owner: str, role: Role, expires_at: datetime | None, created_by: str) -> None:
    """Store a new key."""
    tx.execute(
        text(
            "INSERT INTO api_keys (prefix, digest, owner, role, expires_at, created_by)"
            " VALUES (:prefix, :digest, :owner, :role, :expires_at, :created_by)"
        ),
        {
            "prefix": new.prefix,
            "digest": new.digest,
            "owner": owner,
            "role": role.value,
            "expires_at": expires_at,
            "created_by": created_by,
        },
    )


def page(tx: Connection) -> list[ApiKey]:
    """Return all keys, also those that are not valid any more, the oldest first."""
    return [_api_key(row) for row in tx.execute(text(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at, prefix"))]


def valid_by_digest(tx: Connection) -> dict[bytes, ApiKey]:
    """Return the keys that are valid now, by digest."""
    rows = tx.execute(
        text(
            f"SELECT digest, {_COLUMNS} FROM api_keys"
            " WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
        )
    )
    return {bytes(row.digest): _api_key(row) for row in rows}


def lock(tx: Connection, prefix: str) -> ApiKey | None:
    """Lock and return a key that is not revoked, or None."""
    query = f"SELECT {_COLUMNS} FROM api_keys WHERE prefix = :prefix AND revoked_at IS NULL FOR UPDATE"
    row = tx.execute(text(query), {"prefix": prefix}).one_or_none()
    return None if row is None else _api_key(row)


def revoke(tx: Connection, prefix: str, revoked_by: str) -> None:
    """Make a key invalid now."""
    query = "UPDATE api_keys SET revoked_at = now(), revoked_by = :by WHERE prefix = :prefix"
    tx.execute(text(query), {"prefix": prefix, "by": revoked_by})


def expire(tx: Connection, prefix: str, expires_at: datetime) -> None:
    """Make a key invalid at a time, unless it expires earlier."""
    query = "UPDATE api_keys SET expires_at = least(expires_at, :at) WHERE prefix = :prefix"
    tx.execute(text(query), {"prefix": prefix, "at": expires_at})


def record_use(tx: Connection, prefixes: Collection[str]) -> None:
    """Record that keys were used within the last minute."""
    tx.execute(
        text(
            "UPDATE api_keys SET last_used_at = now() WHERE prefix = ANY(:prefixes)"
            " AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')"
        ),
        {"prefixes": sorted(prefixes)},
    )


def _api_key(row: Any) -> ApiKey:
    times: Mapping[str, float | None] = {
        name: at and at.timestamp()
        for name in ("expires_at", "revoked_at", "last_used_at")
        for at in (getattr(row, name),)
    }
    return ApiKey(row.prefix, row.owner, Role(row.role), row.created_at.timestamp(), row.created_by, **times)
