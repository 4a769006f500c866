"""Pages of lists: which part a caller asks for, and where the next one is."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Request, Response

from service.api.request_parsing import JSON, parse_id, parse_limit
from service.domain.errors import InvalidInput
from service.domain.request import ListPosition
from service.server.responses import encode

LIST_POSITION_PATTERN = "[0-9]{1,15}-[0-9]{1,4}-[0-9]{1,9}-[0-9]{1,18}"
"""The cursor of a list of a user's requests."""

_LIST_POSITION = re.compile(LIST_POSITION_PATTERN, re.ASCII)


Place = TypeVar("Place", int, ListPosition)


class PageQuery(NamedTuple, Generic[Place]):
    """Which part of a list a caller asks for."""

    size: int
    #: the id or the position of the last item of the page before; None: this is the first
    after: Place | None


async def _parse_page_query(request: Request, cursor: str | None = None, limit: str = "50") -> PageQuery[int]:
    """Return the page that the query selects; raise InvalidInput."""
    await refuse_unknown_parameters(request)
    return PageQuery(parse_limit(limit), None if cursor is None else parse_id(cursor, "cursor"))


async def refuse_unknown_parameters(request: Request) -> None:
    """Raise InvalidInput for a parameter that a list or an export does not have.

    If it ignored a misspelt filter, it would show too much.
    """
    parameters = request.app.openapi()["paths"][request.scope["route"].path]["get"]["parameters"]
    known = sorted(parameter["name"] for parameter in parameters if parameter["in"] == "query")
    if unknown := request.query_params.keys() - set(known):
        raise InvalidInput(f"The query has the parameter `{min(unknown)}`. It may have {', '.join(known)}.")


PageQueryDep = Annotated[PageQuery[int], Depends(_parse_page_query)]
"""The page that the query selects; raises InvalidInput."""


async def _parse_user_page_query(
    request: Request, cursor: str | None = None, limit: str = "50"
) -> PageQuery[ListPosition]:
    """Return the page that the query selects; raise InvalidInput."""
    await refuse_unknown_parameters(request)
    return PageQuery(parse_limit(limit), None if cursor is None else _parse_list_position(cursor))


def _parse_list_position(cursor: str) -> ListPosition:
    if not _LIST_POSITION.fullmatch(cursor):
        raise InvalidInput("cursor must be `next` of the previous page.")
    return ListPosition(*map(int, cursor.split("-")))


UserPageQueryDep = Annotated[PageQuery[ListPosition], Depends(_parse_user_page_query)]
"""The page of a user's requests that the query selects; raises InvalidInput."""


class _Page(Protocol):
    @property
    def next(self) -> str | None: ...


Item = TypeVar("Item")


def cut_page(
    found: Sequence[Item], size: int, cursor_of: Callable[[Item], object]
) -> tuple[Sequence[Item], str | None]:
    """Return the items of a page, and the cursor of the next page: None if `found` has no item beyond `size`.

    cursor_of: returns the cursor of the page that begins after an item.
    """
    return found[:size], str(cursor_of(found[size - 1])) if len(found) > size else None


def page_response(request: Request, page: _Page) -> Response:
    """Render a page of a list. A Link (RFC 8288) leads to the next one, with the other parameters of the query.

    Its reference has no path, so that it is right behind a proxy that changes the path (RFC 3986, section 5.2.2).
    """
    headers = {}
    if page.next is not None:
        kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
        query = urlencode([*kept, ("cursor", page.next)])
        headers["Link"] = f'<?{query}>; rel="next"'
    return Response(encode(page), headers=headers, media_type=JSON)
