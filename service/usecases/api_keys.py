"""API keys: operators make and revoke them, and every API process verifies them from memory."""

import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Engine

from service.background_thread import BackgroundThread
from service.domain import api_key
from service.domain.api_key import ApiKey, NewKey
from service.domain.caller import Role
from service.domain.error_code import ErrorCode
from service.domain.errors import NotFound, Unauthenticated, Unavailable
from service.log import get_logger
from service.log_events import LogEvent
from service.store import api_keys
from service.store.engine import in_transaction

_log = get_logger(__name__)
#: a key that was made or revoked counts everywhere after this time
REFRESH_SECONDS = 2.0
#: how long the keys of the last refresh are valid without PostgreSQL
_GRACE_SECONDS = 600.0


class _ValidKeys(NamedTuple):
    """The keys that were valid at the last refresh."""

    by_digest: dict[bytes, ApiKey]
    digests: dict[str, bytes]


class ApiKeyCache(BackgroundThread):
    """The valid API keys, read again and again: no request waits for PostgreSQL, and no guess of a key reaches it."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("api keys")
        self._engine = engine
        self._valid = _ValidKeys({}, {})
        self._refreshed_at: float | None = None
        self._used: set[str] = set()

    def find(self, text: str) -> ApiKey:
        """Return the key with this text; raise Unauthenticated if none that is valid has it.

        Raises Unavailable if the keys could not be read for _GRACE_SECONDS: one of them may have been revoked.
        """
        return self.find_by_digest(api_key.digest(text))

    def find_by_digest(self, digest: bytes) -> ApiKey:
        """Return the key with this digest; raise as `find` does."""
        self._require_fresh()
        found = self._valid.by_digest.get(digest)
        if found is None or (found.expires_at is not None and found.expires_at <= time.time()):
            raise Unauthenticated("The API key is not valid.")
        self._used.add(found.prefix)
        return found

    def digest_of(self, prefix: str) -> bytes:
        """Return the digest of the key with this prefix, which is not used by that; empty if there is none."""
        self._require_fresh()
        return self._valid.digests.get(prefix, b"")

    def _require_fresh(self) -> None:
        if self._refreshed_at is None or time.monotonic() - self._refreshed_at > _GRACE_SECONDS:
            raise Unavailable("PostgreSQL", "the API keys cannot be read")

    def refresh(self) -> None:
        """Read the valid keys and record which were used; raise Unavailable."""
        used = frozenset(self._used)
        with in_transaction(self._engine) as tx:
            if used:
                api_keys.record_use(tx, used)
            valid = api_keys.valid_by_digest(tx)
        self._used -= used
        self._valid = _ValidKeys(valid, {key.prefix: digest for digest, key in valid.items()})
        self._refreshed_at = time.monotonic()

    def run(self) -> None:
        """Work until the thread is closed."""
        while True:
            try:
                self.refresh()
            except Exception as error:  # noqa: BLE001  # without this thread no key would be revoked any more
                _log.warning(LogEvent.API_KEYS_NOT_READ, reason=repr(error))
            if self._stopping.wait(REFRESH_SECONDS):
                return


class ApiKeyService:
    """Operations on API keys; all of them raise Unavailable when the database does not answer."""

    def __init__(self, engine: Engine, acted_by: str) -> None:
        """`acted_by` is recorded with every change."""
        self._engine = engine
        self._acted_by = acted_by

    def create(self, owner: str, role: Role, valid_for: timedelta | None) -> NewKey:
        """Make a key and return it with its text, which is stored nowhere."""
        new = api_key.generate()
        with in_transaction(self._engine) as tx:
            api_keys.insert(tx, new, owner, role, _after(valid_for), self._acted_by)
        return new

    def list_all(self) -> list[ApiKey]:
        """Return every key, also those that are not valid any more, the oldest first."""
        with in_transaction(self._engine) as tx:
            return api_keys.page(tx)

    def rotate(self, prefix: str, overlap: timedelta, valid_for: timedelta | None) -> NewKey:
        """Make a key with the same owner and role; the old one stays valid for `overlap`. Raises NotFound."""
        new = api_key.generate()
        with in_transaction(self._engine) as tx:
            old = _require(api_keys.lock(tx, prefix), prefix)
            api_keys.insert(tx, new, old.owner, old.role, _after(valid_for), self._acted_by)
            api_keys.expire(tx, prefix, datetime.now(UTC) + overlap)
        return new

    def revoke(self, prefix: str) -> None:
        """Make a key invalid; raise NotFound if there is no such key, or if it was revoked before."""
        with in_transaction(self._engine) as tx:
            _require(api_keys.lock(tx, prefix), prefix)
            api_keys.revoke(tx, prefix, self._acted_by)


def _after(valid_for: timedelta | None) -> datetime | None:
    return None if valid_for is None else datetime.now(UTC) + valid_for


def _require(found: ApiKey | None, prefix: str) -> ApiKey:
    if found is None:
        raise NotFound(ErrorCode.UNKNOWN_KEY, f"There is no API key {prefix} that is not revoked.")
    return found
