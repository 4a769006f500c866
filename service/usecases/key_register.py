"""Makes a rotation of REQUEST_ID_KEYS safe: the database has the fingerprint of every key that signs request ids.

A process registers its signing key before it signs the first id. So a process that finds an id that none of its keys
verifies can tell two cases apart: it lacks a registered key, or the id was forged.
"""

from sqlalchemy import Connection

from service.domain.errors import KeyMissing
from service.domain.request_id import RequestIds
from service.store import request_id_keys
from service.store.request_id_keys import RegisteredKey


class KeyRegister:
    """Compares the keys of this process with those that sign anywhere."""

    def __init__(self, ids: RequestIds) -> None:
        self._ids = ids
        #: why this process must not decide; None if it has every key that signs, as of the last comparison
        self.fault: str | None = None

    def compare(self, tx: Connection) -> list[RegisteredKey]:
        """Set or clear the fault; return the register."""
        registered = request_id_keys.registered(tx)
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
        Then an issuer has to be started with that key first. The first key of all needs no issuer.
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
        if signing_key not in signs_since and any(signs_since.values()):
            raise KeyMissing(
                f"the first key of REQUEST_ID_KEYS ({signing_key}) is new and no issuer has it: start the issuers with"
                " this key in the last place first, see docs/key-rotation.md"
            )
        return signs_since.get(signing_key) is not None
