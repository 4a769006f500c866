"""What operators do with the register of keys that sign request ids: show it, and remove a key that is not used."""

from typing import NamedTuple

from sqlalchemy import Engine

from service.config import Settings
from service.domain.error_code import ErrorCode
from service.domain.errors import Conflict, NotFound, UnverifiedRequestId
from service.domain.failures import error_type_name
from service.domain.request_id import RequestIds, fingerprint
from service.store import checkpoints, request_id_keys, requests
from service.store.engine import in_transaction
from service.store.request_id_keys import RegisteredKey
from service.stream import log_reader
from service.stream.codec import RecordReader
from service.stream.topics import Topic

_UNVERIFIED = error_type_name(UnverifiedRequestId)


class ListedKey(NamedTuple):
    """A registered key, and its place in REQUEST_ID_KEYS of this process: 0 signs, None: it is missing."""

    key: RegisteredKey
    place: int | None


class KeyAdministration:
    """The actions of `coupons request-id-keys`; they also work while a key is missing."""

    def __init__(self, settings: Settings, store: Engine) -> None:
        self._settings = settings
        self._store = store

    def list_keys(self) -> list[ListedKey]:
        """Return every registered key, oldest first. Raises Unavailable."""
        places = {fingerprint(key): place for place, key in enumerate(self._settings.mac_keys)}
        with in_transaction(self._store) as tx:
            return [ListedKey(key, places.get(key.fingerprint)) for key in request_id_keys.registered(tx)]

    def remove(self, removed: str, *, even_if_used: bool) -> int:
        """Remove the key with this fingerprint from the register; return how many requests have an id of it.

        These are the decided requests and the undecided records whose id no other key of this process verifies. Raises
        Conflict if there are some, unless `even_if_used` is set: their look-ups are then answered 404, and the proof
        fails for them. Raises NotFound and Unavailable.
        """
        others = RequestIds([key for key in self._settings.mac_keys if fingerprint(key) != removed])
        with in_transaction(self._store) as tx:
            log, current = checkpoints.of_open_log(tx)
            used = sum(others.decode(one) is None for one in requests.iterate_request_ids(tx))
        reader = RecordReader(others, self._settings.topic_partitions, faults=False)
        for partition in range(self._settings.topic_partitions):
            first = current[partition].next_offset if partition in current else None
            for raw in log_reader.read_records(self._settings, Topic.ISSUE_COUPON, partition, first):
                poison = reader.decode(raw, log.topic_id).poison
                used += poison is not None and poison.error_type == _UNVERIFIED
        if used and not even_if_used:
            raise Conflict(
                ErrorCode.IN_USE, f"{used} requests have an id that no other key of REQUEST_ID_KEYS verifies."
            )
        with in_transaction(self._store) as tx:
            if not request_id_keys.remove(tx, removed):
                raise NotFound(ErrorCode.UNKNOWN_KEY, f"No key with the fingerprint {removed} is registered.")
        return used
