"""Queries on the register of the keys that sign request ids; it holds their fingerprints, never a key."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text


class RegisteredKey(NamedTuple):
    """A key by its fingerprint."""

    fingerprint: str
    #: when an issuer was first started that verifies with it
    announced_at: datetime
    #: since when processes sign with it; None: it only verifies
    signs_since: datetime | None


def lock(tx: Connection) -> None:
    """Let no other transaction change the register before the end of this one; reading goes on."""
    tx.execute(text("LOCK TABLE request_id_keys IN SHARE ROW EXCLUSIVE MODE"))


def registered(tx: Connection) -> list[RegisteredKey]:
    """Return every key of the register, oldest first."""
    rows = tx.execute(
        text("SELECT fingerprint, announced_at, signs_since FROM request_id_keys ORDER BY announced_at, fingerprint")
    )
    return [RegisteredKey(*row) for row in rows]


def announce(tx: Connection, fingerprints: Sequence[str]) -> None:
    """Record that an issuer verifies with these keys."""
    tx.execute(
        text(
            "INSERT INTO request_id_keys (fingerprint) SELECT unnest(CAST(:fingerprints AS text[]))"
            " ON CONFLICT (fingerprint) DO NOTHING"
        ),
        {"fingerprints": list(fingerprints)},
    )


def mark_signing(tx: Connection, fingerprint: str) -> None:
    """Record that processes sign with the key from now on."""
    tx.execute(
        text(
            "INSERT INTO request_id_keys (fingerprint, signs_since) VALUES (:fingerprint, now())"
            " ON CONFLICT (fingerprint) DO UPDATE SET signs_since = now() WHERE request_id_keys.signs_since IS NULL"
        ),
        {"fingerprint": fingerprint},
    )


def remove(tx: Connection, fingerprint: str) -> bool:
    """Remove a key from the register; return whether it was there."""
    removed = tx.execute(
        text("DELETE FROM request_id_keys WHERE fingerprint = :fingerprint"), {"fingerprint": fingerprint}
    )
    return removed.rowcount > 0
