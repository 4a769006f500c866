"""Routes that list, show, replay and discard dead letters."""

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.authorization import CallerDep
from service.api.errors import problem_responses
from service.api.request_parsing import JSON, ApiDeps, parse_choice, parse_id, parse_limit, read_body
from service.api.schemas.dead_letters import DeadLetterPage, ReplayRequest, ReplayView, dead_letter_view, replayed_view
from service.domain.dead_letter import DeadLetterCode, DeadLetterFilter, DeadLetterState
from service.server.responses import encode

router = APIRouter(tags=["dead letters"])


@router.get("/dead-letters", responses=problem_responses(422, 503))
def page(
    api: ApiDeps,
    coupon_id: str | None = None,
    code: str | None = None,
    state: str | None = None,
    cursor: str | None = None,
    limit: str = "50",
) -> Response:
    """List dead letters, newest first, at most 500 a page; `cursor` is `next` of the previous page."""
    filters = DeadLetterFilter(
        None if coupon_id is None else parse_id(coupon_id, "coupon_id"),
        None if code is None else parse_choice("code", code, DeadLetterCode),
        None if state is None else parse_choice("state", state, DeadLetterState),
    )
    size = parse_limit(limit)
    found = api.dead_letters.list_page(filters, None if cursor is None else parse_id(cursor, "cursor"), size + 1)
    next_cursor = str(found[size - 1].id) if len(found) > size else None
    views = [dead_letter_view(dead_letter, []) for dead_letter in found[:size]]
    return Response(encode(DeadLetterPage(views, next_cursor)), media_type=JSON)


@router.get("/dead-letters/{dead_letter_id}", responses=problem_responses(404, 422, 503))
def read(dead_letter_id: str, api: ApiDeps) -> Response:
    """Return a dead letter with its raw record and the actions taken on it."""
    return Response(encode(dead_letter_view(*api.dead_letters.get(parse_id(dead_letter_id)))), media_type=JSON)


@router.post("/dead-letters/replay", responses=problem_responses(413, 415, 422, 503))
async def replay_many(request: Request, api: ApiDeps, caller: CallerDep) -> Response:
    """Replay the new dead letters that match, in the order of their offsets; `dry_run` changes nothing."""
    body = await read_body(request, ReplayRequest)
    filters = DeadLetterFilter(body.coupon_id, None if body.code is None else DeadLetterCode(body.code))
    service = api.dead_letters.acting_as(caller.name)
    results = await run_in_threadpool(service.replay_many, filters, body.limit, dry_run=body.dry_run)
    return Response(encode(ReplayView(body.dry_run, [replayed_view(result) for result in results])), media_type=JSON)


@router.post("/dead-letters/{dead_letter_id}/replay", responses=problem_responses(404, 409, 422, 503))
def replay(dead_letter_id: str, api: ApiDeps, caller: CallerDep) -> Response:
    """Replay a dead letter with its original offset; its eligibility is decided again.

    A repeat returns the result of the latest replay, and 409 `changed` if the request is dead again.
    """
    result = api.dead_letters.acting_as(caller.name).replay(parse_id(dead_letter_id))
    return Response(encode(replayed_view(result)), media_type=JSON)


@router.post("/dead-letters/{dead_letter_id}/discard", responses=problem_responses(404, 409, 422, 503))
def discard(dead_letter_id: str, api: ApiDeps, caller: CallerDep) -> Response:
    """Discard a dead letter; its request stays dead. A repeat returns the same result."""
    number = parse_id(dead_letter_id)
    api.dead_letters.acting_as(caller.name).discard(number)
    return Response(encode(dead_letter_view(*api.dead_letters.get(number))), media_type=JSON)
