"""Who calls, and what each kind of caller may do."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from service.domain.errors import Forbidden, InvalidInput


class Permission(StrEnum):
    """What a route requires of its caller."""

    #: nothing: the route is open to everyone
    PUBLIC = "public"
    #: request a coupon for a user
    REQUEST = "request"
    #: read the state of requests: a user's own, or any
    READ_REQUESTS = "read_requests"
    #: list and read coupons
    READ_COUPONS = "read_coupons"
    #: exchange a token for a ticket
    EXCHANGE = "exchange"
    #: read dead letters, the proof, reports and exports, metrics and causes
    READ_OPERATIONS = "read_operations"
    #: pause, open and close coupons; replay and discard dead letters
    OPERATE = "operate"
    #: create coupons, and change everything of them
    ADMINISTER = "administer"


class Role(StrEnum):
    """The role of an API key."""

    #: a back end that calls for its users
    ON_BEHALF = "on_behalf"
    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"


_READ = frozenset({Permission.READ_COUPONS, Permission.READ_REQUESTS, Permission.READ_OPERATIONS})
_OPERATE = _READ | {Permission.OPERATE}
ROLE_PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.ON_BEHALF: frozenset({Permission.REQUEST, Permission.READ_REQUESTS, Permission.READ_COUPONS}),
    Role.READ: _READ,
    Role.OPERATE: _OPERATE,
    Role.ADMIN: _OPERATE | {Permission.ADMINISTER},
}
"""What an API key of each role may do: operators' roles include the lower ones, and none requests coupons."""

TICKET_PERMISSIONS = frozenset({Permission.REQUEST, Permission.READ_REQUESTS, Permission.READ_COUPONS})
"""What the ticket of a user may do."""
TOKEN_PERMISSIONS = TICKET_PERMISSIONS | {Permission.EXCHANGE}
"""What the token of a user may do: a ticket must not be exchanged for another one, or it would never expire."""
STREAM_PERMISSIONS = frozenset({Permission.READ_REQUESTS})
"""What a stream ticket may do. It may stand in a URL, so it never requests a coupon."""


class Caller(NamedTuple):
    """Who sent a request, after authentication."""

    #: as the audit trail shows it
    name: str
    permissions: frozenset[Permission]
    #: the only user for whom this caller acts; None: any
    user_id: int | None = None
    #: when the credentials expire, in seconds since 1970 UTC; None: not, or not known
    expires_at: float | None = None

    def require(self, permission: Permission) -> None:
        """Raise Forbidden if the caller lacks a permission."""
        if permission not in self.permissions:
            raise Forbidden(f"The caller has no permission to do this: it requires `{permission}`.")

    def choose_user(self, user_id: int | None) -> int:
        """Return the user for whom a request is made; `user_id` is what its body names.

        Raises InvalidInput if neither the body nor the credentials name a user, Forbidden if they name different ones.
        """
        if self.user_id is None:
            if user_id is None:
                raise InvalidInput("Object missing required field `user_id`")
            return user_id
        if user_id is not None and user_id != self.user_id:
            raise Forbidden("The body names another user than the credentials.")
        return self.user_id

    def may_see(self, user_id: int) -> bool:
        """Return whether requests of this user exist for the caller."""
        return self.user_id is None or self.user_id == user_id


ANYONE = Caller("authentication off", frozenset(Permission))
"""Every caller while authentication is off."""
