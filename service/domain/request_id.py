"""Signed request ids that are verified without a store.

An id contains coupon, user and minting time, signed with a keyed BLAKE2b (RFC 7693).
"""

import struct
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import blake2b, sha256
from os import urandom
from typing import NamedTuple

from service.domain.errors import KeyEnded, KeyMissing
from service.domain.request import LogPosition
from service.domain.signed_text import TextSigner

#: kind, coupon, user, milliseconds (high and low part of 48 bits), nonce: 29 bytes, big-endian
_BODY = struct.Struct(">BqqHI6s")
#: the first fields of the body: kind, coupon, user
_SUBJECT = struct.Struct(">Bqq")
#: kind and coupon: nine bytes, so that their text does not depend on what follows
_PREFIX = struct.Struct(">Bq")
_MINTED, _DERIVED = 1, 2
_PURPOSE = b"request id"
_FINGERPRINT_BYTES = 4
#: A record is appended no later than this after the end of the key of its id. A repeat is appended under the id of the
#: first attempt, which may have been minted long before.
_MAX_APPEND_AFTER_END_MS = 86_400_000
#: repeats end an hour earlier, because clocks differ and a record may be on its way
_MAX_REPEAT_AFTER_END_MS = 82_800_000


class RequestIdClaims(NamedTuple):
    """What a request id states about itself, after its MAC was verified."""

    coupon_id: int
    user_id: int
    #: when it was minted, or when the broker appended the foreign record; milliseconds since 1970 UTC
    minted_at_ms: int
    #: derived for a record of another producer
    foreign: bool


class RequestIds:
    """Mints, derives and decodes request ids. The first key signs, every key verifies.

    A key may have an end. An id that it signs later is one of another producer, whose record is foreign.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys` may have any length."""
        self._signer = TextSigner(keys, _PURPOSE, _BODY.size)
        #: the public name of each key, in the same order
        self.fingerprints = tuple(map(fingerprint, keys))
        #: when each key ends, in the same order; milliseconds since 1970 UTC, None: it has no end
        self._ends_ms: tuple[int | None, ...] = (None,) * len(keys)

    def set_ends(self, ends_ms: Mapping[str, int]) -> None:
        """Set when keys end, by fingerprint; the others have no end."""
        self._ends_ms = tuple(map(ends_ms.get, self.fingerprints))

    def mint(self, coupon_id: int, user_id: int, now_ms: int) -> str:
        """Return a new id: 60 characters that are safe in URLs. Raises KeyEnded."""
        end_ms = self._ends_ms[0]
        if end_ms is not None and now_ms > end_ms:
            raise KeyEnded(self.fingerprints[0])
        return self._signed(_MINTED, coupon_id, user_id, now_ms, urandom(6))

    def derive(
        self, topic_id: str, log_position: LogPosition, coupon_id: int, user_id: int, appended_at_ms: int
    ) -> str:
        """Return the id of a record that carries none of ours: the same id each time the record is read.

        `topic_id` is Kafka's: a topic that is deleted and created again has other records at the same positions.
        """
        nonce = sha256(struct.pack(">iq", *log_position) + topic_id.encode()).digest()[:6]
        return self._signed(_DERIVED, coupon_id, user_id, appended_at_ms, nonce)

    def decode(self, text: str) -> RequestIdClaims | None:
        """Return what the id states, or None if none of the keys made it."""
        verified = self._signer.verify(text.encode("ascii", "replace"))
        return None if verified is None else _claims(verified[1])

    def was_minted_for(self, text: bytes, coupon_id: int, user_id: int, appended_at_ms: int) -> bool:
        """Return whether it is a minted (not derived) id for this coupon and user, and its key had not ended.

        appended_at_ms: when the broker appended the record that carries it. Somebody who has the key may have signed an
        earlier time, so the end applies to that as well, a day later.
        """
        verified = self._signer.verify(text)
        if verified is None or not verified[1].startswith(_SUBJECT.pack(_MINTED, coupon_id, user_id)):
            return False
        return self._ends_ms[verified[0]] is None or not self._has_ended(*verified, appended_at_ms)

    def ended_key_of(self, text: bytes, coupon_id: int, user_id: int, appended_at_ms: int) -> str | None:
        """Return the fingerprint of the key that had ended, if was_minted_for is false only because of that."""
        key_and_body = self._verify_minted(text, coupon_id, user_id)
        if key_and_body is None or not self._has_ended(*key_and_body, appended_at_ms):
            return None
        return self.fingerprints[key_and_body[0]]

    def _verify_minted(self, text: bytes, coupon_id: int, user_id: int) -> tuple[int, bytes] | None:
        """Return the place of the key and the body of an id minted for this coupon and user, or None."""
        verified = self._signer.verify(text)
        if verified is None or not verified[1].startswith(_SUBJECT.pack(_MINTED, coupon_id, user_id)):
            return None
        return verified

    def _has_ended(self, place: int, body: bytes, appended_at_ms: int) -> bool:
        """Return whether the key at this place had ended, by the time in the id or by that of its record."""
        end_ms = self._ends_ms[place]
        return end_ms is not None and (
            _claims(body).minted_at_ms > end_ms or appended_at_ms > end_ms + _MAX_APPEND_AFTER_END_MS
        )

    def require_repeatable(self, text: str, now_ms: int) -> None:
        """Raise KeyEnded if a record with this id would be foreign, KeyMissing if no key verifies the id."""
        verified = self._signer.verify(text.encode("ascii", "replace"))
        if verified is None:
            raise KeyMissing(f"no key of REQUEST_ID_KEYS verifies the request id {text!r}, which has the user's seat")
        end_ms = self._ends_ms[verified[0]]
        if end_ms is not None and now_ms > end_ms + _MAX_REPEAT_AFTER_END_MS:
            raise KeyEnded(self.fingerprints[verified[0]])

    def is_unverified(self, text: str) -> bool:
        """Return whether it has the form of an id, and none of the keys made it: another key did, or it is forged."""
        raw = self._signer.read(text.encode("ascii", "replace"))
        return raw is not None and raw[0] in (_MINTED, _DERIVED) and self.decode(text) is None

    def is_unverified_for(self, text: bytes, coupon_id: int, user_id: int) -> bool:
        """Return whether it has the form of an id minted for this coupon and user, and none of the keys made it."""
        raw = self._signer.read(text)
        return (
            raw is not None
            and raw.startswith(_SUBJECT.pack(_MINTED, coupon_id, user_id))
            and self._signer.verify(text) is None
        )

    def _signed(self, kind: int, coupon_id: int, user_id: int, at_ms: int, nonce: bytes) -> str:
        body = _BODY.pack(kind, coupon_id, user_id, at_ms >> 32, at_ms & 0xFFFFFFFF, nonce)
        return self._signer.sign(body)


def _claims(body: bytes) -> RequestIdClaims:
    kind, coupon_id, user_id, high, low, _ = _BODY.unpack(body)
    return RequestIdClaims(coupon_id, user_id, high << 32 | low, kind == _DERIVED)


def derived_prefix(coupon_id: int) -> str:
    """Return the text with which every derived id for this coupon begins, and no minted one.

    It proves nothing: use it for ids that were verified, such as those of stored requests.
    """
    return urlsafe_b64encode(_PREFIX.pack(_DERIVED, coupon_id)).decode()


DERIVED_START = derived_prefix(0)[:2]
"""The text with which derived ids begin for every coupon that this service has created, and no minted one."""


def fingerprint(key: bytes) -> str:
    """Return a name of a key that may be shown and stored: eight hexadecimal digits."""
    return blake2b(digest_size=_FINGERPRINT_BYTES, key=sha256(key).digest(), person=b"fingerprint").hexdigest()
