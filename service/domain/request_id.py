"""Signed request ids that are verified without a store.

An id contains coupon, user and minting time, signed with a keyed BLAKE2b (RFC 7693).
"""

import struct
from collections.abc import Sequence
from hashlib import blake2b, sha256
from os import urandom
from typing import NamedTuple

from service.domain.request import LogPosition
from service.domain.signed_text import TextSigner

#: kind, coupon, user, milliseconds (high and low part of 48 bits), nonce: 29 bytes, big-endian
_BODY = struct.Struct(">BqqHI6s")
#: the first fields of the body: kind, coupon, user
_SUBJECT = struct.Struct(">Bqq")
_MINTED, _DERIVED = 1, 2
_PURPOSE = b"request id"
_FINGERPRINT_BYTES = 4


class RequestIdClaims(NamedTuple):
    """What a request id states about itself, after its MAC was verified."""

    coupon_id: int
    user_id: int
    #: when it was minted, or when the broker appended the foreign record; milliseconds since 1970 UTC
    minted_at_ms: int
    #: derived for a record of another producer
    foreign: bool


class RequestIds:
    """Mints, derives and decodes request ids. The first key signs, every key verifies."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys` may have any length."""
        self._signer = TextSigner(keys, _PURPOSE, _BODY.size)
        #: the public name of each key, in the same order
        self.fingerprints = tuple(map(fingerprint, keys))

    def mint(self, coupon_id: int, user_id: int, now_ms: int) -> str:
        """Return a new id: 60 characters that are safe in URLs."""
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
        body = self._signer.verify(text.encode("ascii", "replace"))
        if body is None:
            return None
        kind, coupon_id, user_id, high, low, _ = _BODY.unpack(body)
        return RequestIdClaims(coupon_id, user_id, high << 32 | low, kind == _DERIVED)

    def was_minted_for(self, text: bytes, coupon_id: int, user_id: int) -> bool:
        """Return whether it is a minted (not derived) id for this coupon and user."""
        body = self._signer.verify(text)
        return body is not None and body.startswith(_SUBJECT.pack(_MINTED, coupon_id, user_id))

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


def fingerprint(key: bytes) -> str:
    """Return a name of a key that may be shown and stored: eight hexadecimal digits."""
    return blake2b(digest_size=_FINGERPRINT_BYTES, key=sha256(key).digest(), person=b"fingerprint").hexdigest()
