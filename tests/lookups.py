"""The look-up of a single request, as a caller of the API gets it."""

from service.domain.errors import KeyMissing
from service.usecases.lookup import Lookup, RequestStatus, Undetermined


def find(lookup: Lookup, request_id: str) -> RequestStatus | None:
    """Return a request's status, or None if it is unknown; raise KeyMissing."""
    found = lookup.find_many([request_id]).found[request_id]
    if isinstance(found, KeyMissing):
        raise found
    return lookup.determine_many([found])[0] if isinstance(found, Undetermined) else found
