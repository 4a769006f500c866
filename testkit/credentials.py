"""Credentials of the callers that demo and tests play: a back end for its users, and an administrator."""

from collections.abc import Generator, Mapping
from datetime import timedelta

import httpx

from service.domain.caller import Role
from service.store import engine
from service.usecases.api_keys import ApiKeyService

_VALID_FOR = timedelta(days=1)


class Credentials(httpx.Auth):
    """Sends requests for coupons as a back end does, and everything else as an administrator."""

    def __init__(self, keys: Mapping[Role, str]) -> None:
        """Without `keys` nothing is sent: authentication is off."""
        self._keys = keys

    def key(self, role: Role) -> str | None:
        """Return the API key of a caller with this role, None if authentication is off."""
        return self._keys[role] if self._keys else None

    def headers(self, role: Role) -> dict[str, str]:
        """Return the headers of a caller with this role."""
        key = self.key(role)
        return {"Authorization": f"Bearer {key}"} if key else {}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the caller's headers to a request."""
        is_issuance = request.method == "POST" and request.url.path.endswith("/issuances")
        request.headers.update(self.headers(Role.ON_BEHALF if is_issuance else Role.ADMIN))
        yield request


def create(environment: Mapping[str, str]) -> Credentials:
    """Make the API keys that the environment's processes need: none with AUTH=off.

    An API that is running knows them after two seconds.
    """
    if environment["AUTH"] == "off":
        return Credentials({})
    pooler = environment.get("DATABASE_POOLER") == "true"
    database = engine.build(
        environment["DATABASE_URL"], "credentials", connections=1, pooler=pooler, prepare=not pooler
    )
    try:
        service = ApiKeyService(database, "testkit")
        roles = (Role.ON_BEHALF, Role.ADMIN)
        return Credentials({role: service.create("testkit", role, _VALID_FOR).text for role in roles})
    finally:
        database.dispose()
