"""Look-ups of requests, as a caller of the API gets them."""

from collections.abc import Sequence

from service.cancellation import Cancellation
from service.domain.errors import KeyMissing
from service.usecases.lookup import Lookup, RequestStatus, Undetermined


def find(lookup: Lookup, request_id: str) -> RequestStatus | None:
    """Return a request's status, or None if it is unknown; raise KeyMissing."""
    found = lookup.find_many([request_id]).found[request_id]
    if isinstance(found, KeyMissing):
        raise found
    return determine(lookup, [found])[0] if isinstance(found, Undetermined) else found


def determine(lookup: Lookup, asked: Sequence[Undetermined]) -> list[RequestStatus | None]:
    """Return the status of requests that may be unknown."""
    return lookup.determine_many(asked, Cancellation())
