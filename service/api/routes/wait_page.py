"""The page that shows a waiting user the state of a request, and its files: the same bytes for every request."""

from typing import Annotated

from fastapi import APIRouter, Header, Response

from service.api.page_files import PAGE_POLICY, PageFiles
from service.api.request_parsing import ApiDeps

router = APIRouter(include_in_schema=False)

_FILES = PageFiles("wait_page")
IfNoneMatch = Annotated[str | None, Header()]


@router.get("/wait/{request_id}")
async def wait(request_id: str, api: ApiDeps, if_none_match: IfNoneMatch = None) -> Response:
    """Show the state of a request. The script takes the id from the address, and the ticket from its fragment."""
    del request_id
    policy = " ".join((PAGE_POLICY, "'self'", *api.settings.allowed_origins))
    return _FILES.send_page("wait.html", if_none_match, policy)


@router.get("/wait-page/{name}")
async def read(name: str, if_none_match: IfNoneMatch = None) -> Response:
    """Return a file of the page."""
    return _FILES.send_asset(name, if_none_match)
