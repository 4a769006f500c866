"""Lists the requests of a user for all coupons, newest first."""

from typing import NamedTuple

from sqlalchemy import Engine

from service.domain.request import ListPosition
from service.store import requests
from service.store.engine import in_transaction
from service.usecases.lookup import RequestStatus, status_of

_FIRST = ListPosition(10**15 - 1, 0, 0, 0)


class UserRequest(NamedTuple):
    """A request in the list of its user."""

    status: RequestStatus
    coupon_name: str
    position: ListPosition


class UserRequests:
    """The requests that have a row: a queued one is only in the log, which is not ordered by user."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list_page(self, user_id: int, after: ListPosition | None, limit: int) -> list[UserRequest]:
        """Return up to `limit` requests of a user that follow a position, None: from the newest; raise Unavailable."""
        with in_transaction(self._engine) as tx:
            rows = requests.page_of_user(tx, user_id, after or _FIRST, limit)
        return [_listed(row) for row in rows]


def _listed(row: requests.ListedRequest) -> UserRequest:
    request = row.stored.request
    position = ListPosition(request.requested_at_ms, row.log_id, *request.log_position)
    return UserRequest(status_of(row.stored), row.coupon_name, position)
