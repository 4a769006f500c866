"""Sessions of operators in a browser: a signed text that names an API key, and is valid for as long as the key is.

A session contains the prefix of the key and its own expiry, with a keyed BLAKE2b as MAC (RFC 7693). The MAC depends on
the digest of the API key, too. So neither who has a key of the MAC nor who can read the stored digests can make one.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from service.domain.api_key import PREFIX_LENGTH
from service.domain.signed_text import TextSigner

#: prefix of the API key, expiry in seconds since 1970 UTC: 17 bytes, big-endian; with the MAC 33 bytes, 44 characters
_BODY = struct.Struct(f">{PREFIX_LENGTH}sIxx")
_PURPOSE = b"session"


class Session(NamedTuple):
    """What a session states."""

    key_prefix: str
    #: seconds since 1970 UTC
    expires_at: int


class Sessions:
    """Signs and verifies sessions. The first key signs, every key verifies."""

    def __init__(self, mac_keys: Sequence[bytes]) -> None:
        """`mac_keys` may have any length."""
        self._mac_keys = mac_keys

    def sign(self, session: Session, key_digest: bytes) -> str:
        """Return the session as text that is safe in a cookie; `key_digest` is that of its API key."""
        return self._signer(key_digest).sign(_BODY.pack(session.key_prefix.encode(), session.expires_at))

    def read(self, text: str) -> Session | None:
        """Return what the session states, which is not verified, or None for a text of another form."""
        raw = self._signer(b"").read(text.encode("ascii", "replace"))
        if raw is None:
            return None
        prefix, expires_at = _BODY.unpack_from(raw)
        return Session(prefix.decode("ascii", "replace"), expires_at)

    def is_signed(self, text: str, key_digest: bytes) -> bool:
        """Return whether the session was signed for the API key with this digest."""
        return self._signer(key_digest).verify(text.encode("ascii", "replace")) is not None

    def _signer(self, key_digest: bytes) -> TextSigner:
        return TextSigner([key + key_digest for key in self._mac_keys], _PURPOSE, _BODY.size)
