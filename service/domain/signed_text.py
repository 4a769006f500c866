"""Texts that prove themselves: a body and its keyed BLAKE2b (RFC 7693) in URL-safe base64 (RFC 4648)."""

from base64 import urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Sequence
from hashlib import blake2b, sha256
from hmac import compare_digest

_MAC_BYTES = 16
#: URL-safe base64 to plain base64; the two characters of the plain alphabet become invalid, so a text has one spelling
_PLAIN = bytes.maketrans(b"-_+/", b"+/\0\0")


class TextSigner:
    """Signs and verifies bodies of one length. The first key signs, every key verifies."""

    def __init__(self, keys: Sequence[bytes], purpose: bytes, body_bytes: int) -> None:
        """`keys` may have any length. A text for one purpose is not valid for another, although the keys are the same.

        body_bytes: the length of a body; with the 16 bytes of the MAC a multiple of three, so that no text is padded.
        """
        self._macs = tuple(blake2b(digest_size=_MAC_BYTES, key=sha256(key).digest(), person=purpose) for key in keys)
        self._text_length = (body_bytes + _MAC_BYTES) // 3 * 4

    def sign(self, body: bytes) -> str:
        """Return the body with its MAC as text."""
        return urlsafe_b64encode(body + _digest(self._macs[0], body)).decode()

    def read(self, text: bytes) -> bytes | None:
        """Return body and MAC, which is not verified, or None for a text of another form."""
        if len(text) != self._text_length:
            return None
        try:
            return a2b_base64(text.translate(_PLAIN), strict_mode=True)
        except ValueError:  # not base64
            return None

    def verify(self, text: bytes) -> tuple[int, bytes] | None:
        """Return the place of the key that made the MAC, and the body; None if it was none of the keys."""
        raw = self.read(text)
        if raw is None:
            return None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        for place, keyed in enumerate(self._macs):
            made = keyed.copy()  # as in _digest, without the call: it runs for every record
            made.update(body)
            if compare_digest(made.digest(), mac):
                return place, body
        return None


def _digest(keyed: blake2b, body: bytes) -> bytes:
    """Return the MAC of a body; `keyed` is the hash state after the key was processed."""
    mac = keyed.copy()
    mac.update(body)
    return mac.digest()
