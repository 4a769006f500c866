"""What operators do with the register of keys that sign request ids: show it, and remove a key that is not used."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Engine

from service.config import Settings
from service.domain.error_code import ErrorCode
from service.domain.errors import Conflict, NotFound
from service.domain.failures import UNVERIFIED
from service.domain.request_id import RequestIds, fingerprint
from service.gate.gate_admin import GateAdmin
from service.store import checkpoints, request_id_keys, requests
from service.store.checkpoints import Checkpoint
from service.store.engine import in_transaction
from service.store.logs import Log
from service.store.request_id_keys import RegisteredKey
from service.stream import log_reader
from service.stream.codec import RecordReader
from service.stream.topics import Topic
from service.usecases.key_register import ends_ms


class ListedKey(NamedTuple):
    """A registered key, and its place in REQUEST_ID_KEYS of this process: 0 signs, None: it is missing."""

    key: RegisteredKey
    place: int | None


class KeyAdministration:
    """The actions of `coupons request-id-keys`; they also work while a key is missing."""

    def __init__(self, settings: Settings, store: Engine, gate_admin: GateAdmin) -> None:
        self._settings = settings
        self._store = store
        self._gate_admin = gate_admin

    def list_keys(self) -> list[ListedKey]:
        """Return every registered key, oldest first. Raises Unavailable."""
        places = {fingerprint(key): place for place, key in enumerate(self._settings.mac_keys)}
        with in_transaction(self._store) as tx:
            return [ListedKey(key, places.get(key.fingerprint)) for key in request_id_keys.registered(tx)]

    def end(self, ended: str, in_seconds: int) -> datetime:
        """Let the key with this fingerprint end in so many seconds, unless it has an end; return its end.

        Ids that it signs later are taken for those of another producer. Each process that signs has to read the
        register before the end. Raises Conflict if no other key signs without an end, or if REQUEST_ID_KEYS of this
        process still has the key in the first place; NotFound and Unavailable.
        """
        if self._settings.mac_keys and fingerprint(self._settings.mac_keys[0]) == ended:
            raise Conflict(ErrorCode.IN_USE, f"REQUEST_ID_KEYS here still signs with {ended}: put another key first.")
        with in_transaction(self._store) as tx:
            request_id_keys.lock(tx)  # of two calls that end the last two keys, the second is refused
            signing = [key for key in request_id_keys.registered(tx) if key.signs_since and not key.ends_at]
            if all(key.fingerprint == ended for key in signing):
                raise Conflict(ErrorCode.IN_USE, "No other key signs: put another key first in REQUEST_ID_KEYS.")
            ends_at = request_id_keys.set_end(tx, ended, in_seconds)
        if ends_at is None:
            raise _unknown_key(ended)
        return ends_at

    def remove(self, removed: str, *, even_if_used: bool) -> int:
        """Remove the key with this fingerprint from the register; return how many requests have an id of it.

        These are the requests whose id no other key of this process verifies. Raises Conflict if there are some,
        unless `even_if_used` is set: their look-ups are then answered 404, and the proof fails for them. Raises
        NotFound and Unavailable.
        """
        used = sum(1 for _ in self._uses(removed))
        if used and not even_if_used:
            raise Conflict(
                ErrorCode.IN_USE, f"{used} requests have an id that no other key of REQUEST_ID_KEYS verifies."
            )
        with in_transaction(self._store) as tx:
            if not request_id_keys.remove(tx, removed):
                raise _unknown_key(removed)
        return used

    def _uses(self, removed: str) -> Iterator[object]:
        """Yield each decided request, undecided record and unacknowledged request that needs the key.

        The other keys do not verify its id. An unacknowledged request may be repeated under its id. These are read
        first: one that is acknowledged meanwhile is in the log then. A record with an id that the key signed after its
        end is decided under another id. The proof needs the key for such records as well, so they are uses too.
        """
        others = RequestIds([key for key in self._settings.mac_keys if fingerprint(key) != removed])
        yield from filter(others.is_unverified, self._gate_admin.iterate_unacknowledged())
        with in_transaction(self._store) as tx:
            log, current = checkpoints.of_open_log(tx)
            registered = request_id_keys.registered(tx)
            yield from (one for one in requests.iterate_request_ids(tx) if others.decode(one) is None)
        reader = RecordReader(others, self._settings.topic_partitions, faults=False)
        for partition in range(self._settings.topic_partitions):
            first = current[partition].next_offset if partition in current else None
            for raw in log_reader.read_records(self._settings, Topic.ISSUE_COUPON, partition, first):
                poison = reader.decode(raw, log.topic_id).poison
                if poison and poison.error_type == UNVERIFIED:
                    yield raw
        if any(key.late_id_at for key in registered if key.fingerprint == removed):
            yield from self._decided_late_records(removed, registered, log, current)

    def _decided_late_records(
        self, removed: str, registered: Sequence[RegisteredKey], log: Log, current: Mapping[int, Checkpoint]
    ) -> Iterator[object]:
        """Yield each decided record of the log whose id the key signed after its end."""
        ids = RequestIds(self._settings.mac_keys)
        ids.set_ends(ends_ms(registered))
        reader = RecordReader(ids, self._settings.topic_partitions, faults=False)
        for partition, checkpoint in current.items():
            for raw in log_reader.read_records(self._settings, Topic.ISSUE_COUPON, partition, None):
                if raw.log_position.offset >= checkpoint.next_offset:
                    break
                if reader.decode(raw, log.topic_id).ended_key == removed:
                    yield raw


def _unknown_key(unknown: str) -> NotFound:
    return NotFound(ErrorCode.UNKNOWN_KEY, f"No key with the fingerprint {unknown} is registered.")
