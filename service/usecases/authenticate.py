"""Finds out who calls, from an API key, a ticket, a token or the session of a browser. Nothing here waits."""

from collections.abc import Callable

from service.domain import api_key, ticket
from service.domain.api_key import ApiKey
from service.domain.caller import (
    ANYONE,
    ROLE_PERMISSIONS,
    STREAM_PERMISSIONS,
    TICKET_PERMISSIONS,
    TOKEN_PERMISSIONS,
    Caller,
    Permission,
)
from service.domain.error_code import ErrorCode
from service.domain.errors import Forbidden, NotFound, Unauthenticated
from service.domain.session import Session, Sessions
from service.domain.ticket import Purpose, Ticket, Tickets
from service.identity.tokens import TokenVerifier
from service.limits import MAX_SESSION_SECONDS
from service.usecases.api_keys import ApiKeyCache

_SCHEME = "bearer "
_TICKET_PERMISSIONS = {Purpose.ACCEPT: TICKET_PERMISSIONS, Purpose.STREAM: STREAM_PERMISSIONS}


class Authenticator:
    """Verifies credentials, issues tickets for tokens, and opens sessions for operators' API keys."""

    def __init__(
        self,
        keys: ApiKeyCache,
        sessions: Sessions,
        tickets: Tickets,
        tokens: TokenVerifier,
        ticket_seconds: int,
        now_seconds: Callable[[], float],
        *,
        enabled: bool,
    ) -> None:
        """Without `enabled`, every caller may do everything, whatever it sends."""
        self._keys = keys
        self._sessions = sessions
        self._tickets = tickets
        self._tokens = tokens
        self._ticket_seconds = ticket_seconds
        self._now_seconds = now_seconds
        self.enabled = enabled

    def authenticate(self, authorization: str | None, session: str | None = None) -> Caller:
        """Return the caller with these credentials.

        authorization: the value of the Authorization header; with one, a session is not looked at.
        session: that of a browser.
        Raises Unauthenticated, or Unavailable if what verifies them was never read.
        """
        if not self.enabled:
            return ANYONE
        if session is not None and not authorization:
            return self._find_operator(session)
        if not authorization:
            raise Unauthenticated("The request needs an Authorization header.", absent=True)
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise Unauthenticated("The Authorization header must have the form `Bearer CREDENTIALS`.")
        text = authorization[len(_SCHEME) :].strip()
        if len(text) == ticket.LENGTH:
            found = self._tickets.verify(text, self._now_seconds())
            return Caller(f"user {found.user_id}", _TICKET_PERMISSIONS[found.purpose], found.user_id, found.expires_at)
        if text.startswith(api_key.MARK):
            return _caller_with(self._keys.find(text))
        token = self._tokens.verify(text)
        return Caller(f"user {token.user_id}", TOKEN_PERMISSIONS, token.user_id, token.expires_at)

    def open_session(self, key_text: str) -> tuple[str, Session]:
        """Return a session for the API key of an operator, valid for MAX_SESSION_SECONDS but not longer than the key.

        Raises Unauthenticated, Unavailable, Forbidden for a key that is no operator's, and NotFound without
        authentication.
        """
        if not self.enabled:
            raise NotFound(ErrorCode.NOT_FOUND, "There are no sessions: authentication is off.")
        key = self._keys.find(key_text)
        _caller_with(key).require(Permission.READ_OPERATIONS)
        expires_at = self._now_seconds() + MAX_SESSION_SECONDS
        if key.expires_at is not None:
            expires_at = min(expires_at, key.expires_at)
        opened = Session(key.prefix, int(expires_at))
        return self._sessions.sign(opened, api_key.digest(key_text)), opened

    def _find_operator(self, session: str) -> Caller:
        """Return the caller with the API key of a session; raise Unauthenticated if either is not valid any more."""
        stated = self._sessions.read(session)
        if stated is None or stated.expires_at <= self._now_seconds():
            raise Unauthenticated("The session has ended. Log in again.")
        digest = self._keys.digest_of(stated.key_prefix)
        if not self._sessions.is_signed(session, digest):
            raise Unauthenticated("The session is not valid. Log in again.")
        return _caller_with(self._keys.find_by_digest(digest))._replace(expires_at=stated.expires_at)

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


def _caller_with(key: ApiKey) -> Caller:
    return Caller(f"key {key.prefix} ({key.owner})", ROLE_PERMISSIONS[key.role], None, key.expires_at)
