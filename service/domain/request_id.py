"""Request ids that prove themselves: coupon, user and minting time under a keyed BLAKE2b (RFC 7693)."""

import os
import struct
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Sequence
from hashlib import blake2b, sha256
from hmac import compare_digest
from typing import NamedTuple

from service.domain.request import LogPosition

#: kind, coupon, user, milliseconds (high and low part of 48 bits), nonce: 29 bytes, big-endian
_BODY = struct.Struct(">BqqHI6s")
#: the body's beginning: kind, coupon, user
_SUBJECT = struct.Struct(">Bqq")
_MAC_BYTES = 16
_TEXT_LENGTH = 60
#: URL-safe base64 to plain; the plain alphabet's own two characters become invalid, so an id has one spelling
_PLAIN = bytes.maketrans(b"-_+/", b"+/\0\0")
_MINTED, _DERIVED = 1, 2
_PURPOSE = b"request id"


class RequestIdClaims(NamedTuple):
    """What a request id says of itself once its MAC has been verified."""

    coupon_id: int
    user_id: int
    #: when it was minted; for a foreign record when the broker appended it; milliseconds since 1970 UTC
    minted_at_ms: int
    #: derived for a record that some other producer wrote
    foreign: bool


class RequestIds:
    """Mints, derives and reads request ids; the first key signs, every key verifies."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._macs = tuple(_keyed(key) for key in keys)

    def mint(self, coupon_id: int, user_id: int, now_ms: int) -> str:
        """A new id, 60 characters safe in URLs."""
        return self._signed(_MINTED, coupon_id, user_id, now_ms, os.urandom(6))

    def derive(self, log_position: LogPosition, coupon_id: int, user_id: int, appended_at_ms: int) -> str:
        """The id of a record that carries none of ours: the same each time that record is read."""
        nonce = sha256(struct.pack(">iq", *log_position)).digest()[:6]
        return self._signed(_DERIVED, coupon_id, user_id, appended_at_ms, nonce)

    def decode(self, text: str) -> RequestIdClaims | None:
        """What the id claims, or None when it was not made with one of the keys."""
        body = self._proven(text.encode("ascii", "replace"))
        if body is None:
            return None
        kind, coupon_id, user_id, high, low, _ = _BODY.unpack(body)
        return RequestIdClaims(coupon_id, user_id, high << 32 | low, kind == _DERIVED)

    def was_minted_for(self, text: bytes, coupon_id: int, user_id: int) -> bool:
        """Whether it is an id of ours, not a derived one, for this coupon and user."""
        body = self._proven(text)
        return body is not None and body.startswith(_SUBJECT.pack(_MINTED, coupon_id, user_id))

    def _proven(self, text: bytes) -> bytes | None:
        """The body of an id, or None when its MAC was not made with one of the keys."""
        if len(text) != _TEXT_LENGTH:
            return None
        try:
            raw = a2b_base64(text.translate(_PLAIN), strict_mode=True)
        except ValueError:  # not base64
            return None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        for keyed in self._macs:
            if compare_digest(_mac(keyed, body), mac):
                return body
        return None

    def _signed(self, kind: int, coupon_id: int, user_id: int, at_ms: int, nonce: bytes) -> str:
        body = _BODY.pack(kind, coupon_id, user_id, at_ms >> 32, at_ms & 0xFFFFFFFF, nonce)
        return urlsafe_b64encode(body + _mac(self._macs[0], body)).decode()


def _keyed(key: bytes) -> blake2b:
    """The MAC's state after its key, which may have any length."""
    return blake2b(digest_size=_MAC_BYTES, key=sha256(key).digest(), person=_PURPOSE)


def _mac(keyed: blake2b, body: bytes) -> bytes:
    hashed = keyed.copy()
    hashed.update(body)
    return hashed.digest()
