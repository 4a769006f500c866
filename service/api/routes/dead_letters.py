"""Dead letters: find them, bring them back, put them away."""

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.errors import problem_responses
from service.api.request_parsing import ApiDeps, parse_choice, parse_id, parse_limit, read_body
from service.api.schemas.base import encode
from service.api.schemas.dead_letters import DeadLetterPage, ReplayRequest, ReplayView, dead_letter_view, replayed_view
from service.domain.dead_letter import DeadLetter, DeadLetterAction, DeadLetterFilter, DeadLetterState
from service.domain.errors import NotFound
from service.domain.request import ReasonCode
from service.resources import ApiResources
from service.store import dead_letter_actions
from service.store.engine import in_transaction

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
    """A page of dead letters, the newest first, at most 500; `cursor` is the `next` of the page before."""
    filters = DeadLetterFilter(
        None if coupon_id is None else parse_id(coupon_id),
        None if code is None else parse_choice("code", code, ReasonCode),
        None if state is None else parse_choice("state", state, DeadLetterState),
    )
    size = parse_limit(limit)
    with in_transaction(api.engine) as tx:
        found = dead_letter_actions.page(tx, filters, None if cursor is None else parse_id(cursor), size + 1)
    more = str(found[size - 1].id) if len(found) > size else None
    views = [dead_letter_view(letter, []) for letter in found[:size]]
    return Response(encode(DeadLetterPage(views, more)), media_type="application/json")


@router.get("/dead-letters/{dead_letter_id}", responses=problem_responses(404, 422, 503))
def read(dead_letter_id: str, api: ApiDeps) -> Response:
    """A dead letter with its raw record and what was done with it."""
    letter, actions = _find(api, parse_id(dead_letter_id))
    return Response(encode(dead_letter_view(letter, actions)), media_type="application/json")


@router.post("/dead-letters/replay", responses=problem_responses(413, 415, 422, 503))
async def replay_many(request: Request, api: ApiDeps) -> Response:
    """Brings back the new dead letters that are meant, in the order of their places; `dry_run` only tells."""
    body = await read_body(request, ReplayRequest)
    filters = DeadLetterFilter(body.coupon_id, None if body.code is None else ReasonCode(body.code))
    done = await run_in_threadpool(api.dead_letters.replay_many, filters, body.limit, dry_run=body.dry_run)
    return Response(
        encode(ReplayView(body.dry_run, [replayed_view(one) for one in done])), media_type="application/json"
    )


@router.post("/dead-letters/{dead_letter_id}/replay", responses=problem_responses(404, 409, 422, 503))
def replay(dead_letter_id: str, api: ApiDeps) -> Response:
    """Brings one back under its rank; whether it may have a coupon is decided anew. A repeat answers the same."""
    done = api.dead_letters.replay(parse_id(dead_letter_id))
    return Response(encode(replayed_view(done)), media_type="application/json")


@router.post("/dead-letters/{dead_letter_id}/discard", responses=problem_responses(404, 409, 422, 503))
def discard(dead_letter_id: str, api: ApiDeps) -> Response:
    """Puts one away for good; its request stays dead. A repeat answers the same."""
    api.dead_letters.discard(parse_id(dead_letter_id))
    letter, actions = _find(api, parse_id(dead_letter_id))
    return Response(encode(dead_letter_view(letter, actions)), media_type="application/json")


def _find(api: ApiResources, dead_letter_id: int) -> tuple[DeadLetter, list[DeadLetterAction]]:
    with in_transaction(api.engine) as tx:
        letter = dead_letter_actions.get(tx, dead_letter_id)
        actions = dead_letter_actions.actions(tx, dead_letter_id)
    if letter is None:
        raise NotFound("unknown_dead_letter", "There is no such dead letter.")
    return letter, actions
