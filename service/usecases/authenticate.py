"""Finds out who calls, from the Authorization header: an API key, a ticket or a token. Nothing here waits."""

from collections.abc import Callable

from service.domain import api_key, ticket
from service.domain.caller import (
    ANYONE,
    ROLE_PERMISSIONS,
    STREAM_PERMISSIONS,
    TICKET_PERMISSIONS,
    TOKEN_PERMISSIONS,
    Caller,
)
from service.domain.errors import Forbidden, Unauthenticated
from service.domain.ticket import Purpose, Ticket, Tickets
from service.identity.tokens import TokenVerifier
from service.usecases.api_keys import ApiKeyCache

_SCHEME = "bearer "
_TICKET_PERMISSIONS = {Purpose.ACCEPT: TICKET_PERMISSIONS, Purpose.STREAM: STREAM_PERMISSIONS}


class Authenticator:
    """Verifies credentials, and issues tickets for tokens."""

    def __init__(
        self,
        keys: ApiKeyCache,
        tickets: Tickets,
        tokens: TokenVerifier,
        ticket_seconds: int,
        now_seconds: Callable[[], float],
        *,
        enabled: bool,
    ) -> None:
        """Without `enabled`, every caller may do everything, whatever it sends."""
        self._keys = keys
        self._tickets = tickets
        self._tokens = tokens
        self._ticket_seconds = ticket_seconds
        self._now_seconds = now_seconds
        self.enabled = enabled

    def authenticate(self, authorization: str | None) -> Caller:
        """Return the caller with these credentials, the value of the Authorization header.

        Raises Unauthenticated, or Unavailable if what verifies them was never read.
        """
        if not self.enabled:
            return ANYONE
        if not authorization:
            raise Unauthenticated("The request needs an Authorization header.", absent=True)
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise Unauthenticated("The Authorization header must have the form `Bearer CREDENTIALS`.")
        text = authorization[len(_SCHEME) :].strip()
        if len(text) == ticket.LENGTH:
            found = self._tickets.verify(text, self._now_seconds())
            return Caller(f"user {found.user_id}", _TICKET_PERMISSIONS[found.purpose], found.user_id, found.expires_at)
        if text.startswith(api_key.MARK):
            key = self._keys.find(text)
            return Caller(f"key {key.prefix} ({key.owner})", ROLE_PERMISSIONS[key.role], None, key.expires_at)
        token = self._tokens.verify(text)
        return Caller(f"user {token.user_id}", TOKEN_PERMISSIONS, token.user_id, token.expires_at)

    def issue_ticket(self, caller: Caller, purpose: Purpose) -> tuple[str, Ticket]:
        """Return a ticket for a caller with a token, valid for TICKET_SECONDS but not longer than the token.

        Raises Forbidden if the caller is no user, Unauthenticated if the token has expired and is still accepted
        because clocks differ: its ticket would not be.
        """
        if caller.user_id is None:
            raise Forbidden("Only a user gets a ticket: send a token.")
        now = self._now_seconds()
        expires_at = now + self._ticket_seconds
        if caller.expires_at is not None:
            expires_at = min(expires_at, caller.expires_at)
        issued = Ticket(purpose, caller.user_id, int(expires_at))
        if issued.expires_at <= now:
            raise Unauthenticated("The token has expired.")
        return self._tickets.issue(issued), issued
