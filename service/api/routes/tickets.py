"""The route that exchanges a user's token for a ticket."""

from fastapi import APIRouter, Request, Response

from service.api.authorization import CallerDep
from service.api.request_parsing import JSON, ApiDeps, read_body
from service.api.schemas.tickets import NewTicket, ticket_view
from service.server.responses import encode

router = APIRouter(tags=["tickets"])


@router.post("/tickets", status_code=201)
async def exchange(request: Request, api: ApiDeps, caller: CallerDep) -> Response:
    """Exchange a token for a ticket, which costs less to verify: before a sale opens, for the requests during it.

    A ticket is valid for TICKET_SECONDS, not longer than the token. It may be used more than once.
    """
    body = await read_body(request, NewTicket)
    text, ticket = api.authenticator.issue_ticket(caller, body.value)
    return Response(encode(ticket_view(text, ticket)), 201, media_type=JSON)
