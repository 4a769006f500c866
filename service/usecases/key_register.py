"""Makes a rotation of REQUEST_ID_KEYS safe: the database has the fingerprint of every key that signs request ids.

A process registers its signing key before it signs the first id. So a process that finds an id that none of its keys
verifies can tell two cases apart: it lacks a registered key, or the id was forged.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, Engine

from service.background_thread import BackgroundThread
from service.domain.errors import KeyEnded, KeyMissing
from service.domain.request_id import RequestIds
from service.log import get_logger
from service.log_events import LogEvent
from service.store import request_id_keys
from service.store.engine import in_transaction
from service.store.request_id_keys import RegisteredKey
from service.timestamps import to_milliseconds

_log = get_logger(__name__)
_INTERVAL_SECONDS = 5.0


class KeyRegister:
    """Compares the keys of this process with those that sign anywhere."""

    def __init__(self, ids: RequestIds) -> None:
        self._ids = ids
        #: why this process must not decide; None if it has every key that signs, as of the last comparison
        self.fault: str | None = None
        #: why an operator should act although the process goes on: an end of a key is not observed
        self.alert: str | None = None

    @property
    def ids(self) -> RequestIds:
        """The encoder and decoder of request ids, which has the ends of the keys as of the last comparison."""
        return self._ids

    def compare(self, tx: Connection) -> list[RegisteredKey]:
        """Set or clear the fault and the alert, and read when keys end; return the register."""
        registered = request_id_keys.registered(tx)
        self._ids.set_ends(ends_ms(registered))
        self.alert = "; ".join(self._unobserved_ends(registered)) or None
        missing = [
            f"{key.fingerprint} (since {key.signs_since:%Y-%m-%d %H:%M:%S}Z)"
            for key in registered
            if key.signs_since and key.fingerprint not in self._ids.fingerprints
        ]
        self.fault = (
            "request ids are signed with keys that REQUEST_ID_KEYS of this process lacks, by fingerprint:"
            f" {', '.join(missing)}: add them in the last place and restart it, see docs/key-rotation.md"
            if missing
            else None
        )
        return registered

    def _unobserved_ends(self, registered: Sequence[RegisteredKey]) -> Iterator[str]:
        for key in registered:
            if key.ends_at and key.fingerprint == self._ids.fingerprints[0]:
                yield (
                    f"this process signs request ids with the key {key.fingerprint}, which ends at"
                    f" {key.ends_at:%Y-%m-%d %H:%M:%S}Z: put another key first in REQUEST_ID_KEYS and restart it"
                )
            if key.has_late_ids:
                yield (
                    f"records carry request ids that the key {key.fingerprint} signed after its end, the last one at"
                    f" {key.late_id_at:%Y-%m-%d %H:%M}Z: find out who has the key and writes to ISSUE_COUPON"
                )

    def require_complete(self, tx: Connection, found: str) -> list[RegisteredKey]:
        """Return the register; raise KeyMissing if this process lacks a key that signs.

        `found` says where an unverified id was found. The transaction must see what was committed before the id was
        read: a key is registered before it signs.
        """
        registered = self.compare(tx)
        if self.fault:
            raise KeyMissing(f"{found}: {self.fault}")
        return registered

    def register(self, tx: Connection, *, announce: bool) -> None:
        """Register the signing key of this process, which may sign when this transaction is committed.

        announce: whether this process is an issuer. Its keys are recorded as ones that an issuer verifies.

        Raises KeyMissing if this process lacks a key that signs, or if its signing key is new and no issuer has it.
        Then an issuer has to be started with that key first. The first key of all needs no issuer. Raises KeyEnded if
        the signing key has ended.
        """
        if announce:
            request_id_keys.announce(tx, self._ids.fingerprints)
        if not self._is_signing(tx):
            request_id_keys.lock(tx)  # of two processes that are the first to sign, the second sees the other's key
            if not self._is_signing(tx):
                request_id_keys.mark_signing(tx, self._ids.fingerprints[0])

    def _is_signing(self, tx: Connection) -> bool:
        """Return whether the signing key is registered as one; raise KeyMissing if this process may not sign."""
        registered = self.require_complete(tx, "this process must not sign")
        signs_since = {key.fingerprint: key.signs_since for key in registered}
        signing_key = self._ids.fingerprints[0]
        if any(key.has_ended for key in registered if key.fingerprint == signing_key):
            raise KeyEnded(signing_key)
        if signing_key not in signs_since and any(signs_since.values()):
            raise KeyMissing(
                f"the first key of REQUEST_ID_KEYS ({signing_key}) is new and no issuer has it: start the issuers with"
                " this key in the last place first, see docs/key-rotation.md"
            )
        return signs_since.get(signing_key) is not None


def ends_ms(registered: Sequence[RegisteredKey]) -> dict[str, int]:
    """Return when keys end, by fingerprint; milliseconds since 1970 UTC."""
    return {key.fingerprint: to_milliseconds(key.ends_at) for key in registered if key.ends_at}


class KeyWatch(BackgroundThread):
    """Compares the keys with the register every five seconds, so that a process has the end of a key in time."""

    def __init__(self, engine: Engine, key_register: KeyRegister) -> None:
        super().__init__("key watch")
        self._engine = engine
        self._key_register = key_register

    def run(self) -> None:
        """Work until the thread is closed."""
        while not self._stopping.wait(_INTERVAL_SECONDS):
            try:
                with in_transaction(self._engine) as tx:
                    self._key_register.compare(tx)
            except Exception as error:  # noqa: BLE001  # the next comparison may succeed
                _log.warning(LogEvent.KEY_REGISTER_NOT_READ, reason=str(error))
