"""Request ids that prove themselves: coupon, user and minting time under a keyed BLAKE2b (RFC 7693)."""

import os
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b, sha256
from hmac import compare_digest
from typing import NamedTuple

from service.domain.request import Place

#: kind, coupon, user, milliseconds (high and low part of 48 bits), nonce: 29 bytes, big-endian
_BODY = struct.Struct(">BqqHI6s")
_MAC_BYTES = 16
_TEXT_LENGTH = 60
_FORM = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_MINTED, _DERIVED = 1, 2
_PURPOSE = b"request id"


class Claim(NamedTuple):
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
        self._keys = tuple(sha256(key).digest() for key in keys)

    def mint(self, coupon_id: int, user_id: int, now_ms: int) -> str:
        """A new id, 60 characters safe in URLs."""
        return self._signed(_MINTED, coupon_id, user_id, now_ms, os.urandom(6))

    def derive(self, place: Place, coupon_id: int, user_id: int, appended_at_ms: int) -> str:
        """The id of a record that carries none of ours: the same each time that record is read."""
        nonce = sha256(struct.pack(">iq", *place)).digest()[:6]
        return self._signed(_DERIVED, coupon_id, user_id, appended_at_ms, nonce)

    def read(self, text: str) -> Claim | None:
        """What the id claims, or None when it was not made with one of the keys."""
        if len(text) != _TEXT_LENGTH or not _FORM.fullmatch(text):
            return None
        raw = urlsafe_b64decode(text)
        return self._claim(raw[:-_MAC_BYTES], raw[-_MAC_BYTES:])

    def _claim(self, body: bytes, mac: bytes) -> Claim | None:
        for key in self._keys:
            if compare_digest(_mac(key, body), mac):
                kind, coupon_id, user_id, high, low, _ = _BODY.unpack(body)
                return Claim(coupon_id, user_id, high << 32 | low, kind == _DERIVED)
        return None

    def _signed(self, kind: int, coupon_id: int, user_id: int, at_ms: int, nonce: bytes) -> str:
        body = _BODY.pack(kind, coupon_id, user_id, at_ms >> 32, at_ms & 0xFFFFFFFF, nonce)
        return urlsafe_b64encode(body + _mac(self._keys[0], body)).decode()


def _mac(key: bytes, body: bytes) -> bytes:
    return blake2b(body, digest_size=_MAC_BYTES, key=key, person=_PURPOSE).digest()
