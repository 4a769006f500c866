"""Tickets: signed permissions to request coupons, verified without a store and for less CPU time than a token.

A ticket contains its purpose, the user and its expiry, with a keyed BLAKE2b as MAC (RFC 7693). It may be used until it
expires, also more than once: the gate refuses a second request of the same user for a coupon.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from service.domain.errors import Unauthenticated
from service.domain.signed_text import TextSigner

#: purpose, user, expiry in seconds since 1970 UTC: 14 bytes, big-endian; with the MAC 30 bytes, 40 characters
_BODY = struct.Struct(">BqIx")
LENGTH = 40
#: a ticket is no request id, although the same key may sign both: the MAC of each has a purpose of its own
_PURPOSE = b"ticket"


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
        self._signer = TextSigner(keys, _PURPOSE, _BODY.size)

    def issue(self, ticket: Ticket) -> str:
        """Return the ticket as text that is safe in URLs and headers."""
        return self._signer.sign(_BODY.pack(*ticket))

    def verify(self, text: str, now_seconds: float) -> Ticket:
        """Return what the ticket states; raise Unauthenticated if none of the keys signed it, or if it has expired."""
        verified = self._signer.verify(text.encode("ascii", "replace"))
        if verified is None:
            raise Unauthenticated("The ticket is not valid.")
        purpose, user_id, expires_at = _BODY.unpack(verified[1])
        if expires_at <= now_seconds:
            raise Unauthenticated("The ticket has expired.")
        return Ticket(Purpose(purpose), user_id, expires_at)
