"""Tickets: signed permissions to request coupons, verified without a store and for less CPU time than a token.

A ticket contains its purpose, the user and its expiry, with a keyed BLAKE2b as MAC (RFC 7693). It may be used until it
expires, also more than once: the gate refuses a second request of the same user for a coupon.
"""

import struct
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Sequence
from enum import IntEnum
from hashlib import blake2b, sha256
from hmac import compare_digest
from typing import NamedTuple

#: purpose, user, expiry in seconds since 1970 UTC: 14 bytes, big-endian; with the MAC 30 bytes, 40 characters
_BODY = struct.Struct(">BqIx")
_MAC_BYTES = 16
LENGTH = 40
#: a ticket is no request id, although the same key may sign both: the MAC of each has a purpose of its own
_PERSON = b"ticket"
_PLAIN = bytes.maketrans(b"-_+/", b"+/\0\0")


class Purpose(IntEnum):
    """What a ticket is for."""

    #: to request coupons
    ACCEPT = 1
    #: to follow requests: it cannot request a coupon
    STREAM = 2


class Ticket(NamedTuple):
    """What a ticket states."""

    purpose: Purpose
    user_id: int
    #: seconds since 1970 UTC
    expires_at: int


class Tickets:
    """Issues and verifies tickets. The first key signs, every key verifies."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys` may have any length; without one, no ticket is valid."""
        self._macs = tuple(blake2b(digest_size=_MAC_BYTES, key=sha256(key).digest(), person=_PERSON) for key in keys)

    def issue(self, ticket: Ticket) -> str:
        """Return the ticket as text that is safe in URLs and headers."""
        body = _BODY.pack(*ticket)
        return urlsafe_b64encode(body + _mac(self._macs[0], body)).decode()

    def verify(self, text: str) -> Ticket | None:
        """Return what the ticket states, or None if none of the keys signed it. The caller compares the expiry."""
        if len(text) != LENGTH:
            return None
        try:
            raw = a2b_base64(text.encode("ascii", "replace").translate(_PLAIN), strict_mode=True)
        except ValueError:  # not base64
            return None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        for keyed in self._macs:
            if compare_digest(_mac(keyed, body), mac):
                purpose, user_id, expires_at = _BODY.unpack(body)
                return Ticket(Purpose(purpose), user_id, expires_at)
        return None


def _mac(keyed: blake2b, body: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(body)
    return mac.digest()
