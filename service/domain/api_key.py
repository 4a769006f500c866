"""API keys: how they are made, and what is stored of them."""

from hashlib import sha256
from secrets import token_urlsafe
from typing import NamedTuple

from service.domain.caller import Role

#: with which every key begins, so that scanners of source code find one that was published
MARK = "ck_"
#: characters by which a key is named
PREFIX_LENGTH = 11


class ApiKey(NamedTuple):
    """An API key without its secret; times are seconds since 1970 UTC."""

    #: the beginning of the key, by which it is named
    prefix: str
    #: who or what uses it
    owner: str
    role: Role
    created_at: float
    created_by: str
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None


class NewKey(NamedTuple):
    """A key that was just made: its text is shown once, and never stored."""

    text: str
    prefix: str
    digest: bytes


def generate() -> NewKey:
    """Make a key with 256 random bits."""
    text = MARK + token_urlsafe(32)
    return NewKey(text, text[:PREFIX_LENGTH], digest(text))


def digest(text: str) -> bytes:
    """Return what is stored of a key. It has too many random bits to be guessed, so one hash is enough."""
    return sha256(text.encode("utf-8", "replace")).digest()
