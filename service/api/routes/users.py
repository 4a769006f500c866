"""The route that lists the requests of a user."""

from fastapi import APIRouter, Request, Response

from service.api.authorization import CallerDep
from service.api.pages import UserPageQueryDep, cut_page, page_response
from service.api.request_parsing import ApiDeps, parse_id
from service.api.schemas.issuances import UserIssuancePage, user_issuance_view
from service.clock import now_ms
from service.domain.error_code import ErrorCode
from service.domain.errors import NotFound
from service.server.problems import PROBLEMS

router = APIRouter(tags=["issuances"])


@router.get("/users/{user_id}/issuances")
async def page(user_id: str, request: Request, api: ApiDeps, caller: CallerDep, query: UserPageQueryDep) -> Response:
    """List the requests of a user for all coupons, newest first, at most 500 a page.

    `cursor` is `next` of the previous page, and `Link` has its address. A request is in the list once its state is
    stored: issued, refused, retrying, standby or dead. While it is queued, `GET /issuances/{request_id}` shows it. What
    another producer requested for a coupon that does not exist is not in the list. A user may read the own list only;
    every other one does not exist (404).
    """
    number = parse_id(user_id, "user_id")  # also one that only other producers name, above MAX_SAFE_ID
    if not caller.may_see(number):
        raise NotFound(ErrorCode.NOT_FOUND, PROBLEMS[ErrorCode.NOT_FOUND].detail)
    found = await api.user_lists.run(api.user_requests.list_page, number, query.after, query.size + 1)
    shown, cursor = cut_page(found, query.size, lambda one: "-".join(map(str, one.position)))
    return page_response(request, UserIssuancePage([user_issuance_view(one, now_ms()) for one in shown], cursor))
