"""Verifies users' tokens: JSON Web Tokens (RFC 7519) by the rules of RFC 8725."""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jwt
from jwt import PyJWK

from service.config import Settings
from service.domain.errors import Misconfigured, Unauthenticated
from service.limits import MAX_SAFE_ID

#: at most the digits of the largest id
_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
#: a longer token is not read: RS256 with some claims has a thousand characters
_MAX_LENGTH = 8_192


class Token(NamedTuple):
    """What a token states."""

    user_id: int
    #: seconds since 1970 UTC
    expires_at: float


class TokenVerifier:
    """Verifies signature, issuer, audience and times of a token with pinned algorithms."""

    def __init__(self, settings: Settings, find_key: Callable[[str], PyJWK | None]) -> None:
        """find_key: returns the public key with an id; it raises Unavailable when the keys were never read."""
        self._algorithms = settings.token_algorithms
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._claim = settings.jwt_user_claim
        self._leeway = settings.jwt_leeway_seconds
        self._secret = settings.jwt_secret.get_secret_value()
        self._find_key = find_key
        required = ["exp", "aud", "iss", self._claim, *(["nbf"] if settings.jwt_require_nbf else [])]
        self._decode = jwt.PyJWT({"require": required, "enforce_minimum_key_length": True}).decode

    def verify(self, text: str) -> Token:
        """Return what a token states; raise Unauthenticated, or Unavailable without the public keys."""
        if not self._issuer:
            raise Unauthenticated("Tokens are not accepted here.")
        if len(text) > _MAX_LENGTH:
            raise Unauthenticated("The token is too long.")
        try:
            claims = self._decode(
                text,
                self._key(text),
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise Unauthenticated(f"The token is not valid: {error}") from None
        value = claims[self._claim]
        user_id = str(value) if type(value) in (int, str) else ""
        if not _ID.fullmatch(user_id):
            raise Unauthenticated(f"The token's `{self._claim}` is not the integer id of a user.")
        if int(user_id) > MAX_SAFE_ID:
            raise Unauthenticated(f"The token's `{self._claim}` is above {MAX_SAFE_ID}.")
        return Token(int(user_id), float(claims["exp"]))

    def _key(self, text: str) -> Any:
        if "HS256" in self._algorithms:
            return self._secret
        key_id = jwt.get_unverified_header(text).get("kid")
        key = self._find_key(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise Unauthenticated("The token is signed with a key that is not in the key set of its issuer.")
        return key


def sign(settings: Settings, user_id: int, valid_seconds: int) -> str:
    """Return a token that the API accepts; raise Misconfigured without JWT_SECRET."""
    if settings.jwt_algorithms != "HS256" or not settings.jwt_issuer:
        raise Misconfigured(["JWT_ALGORITHMS: only tokens with HS256 can be signed here, with JWT_SECRET"])
    now = int(time.time())
    claims = {
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "nbf": now,
        "exp": now + valid_seconds,
        settings.jwt_user_claim: str(user_id),
    }
    return jwt.encode(claims, settings.jwt_secret.get_secret_value(), "HS256")
