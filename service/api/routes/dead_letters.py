"""Routes that list, show, replay and discard dead letters."""

from functools import partial
from operator import attrgetter

from fastapi import APIRouter, Request, Response

from service.api.authorization import CallerDep
from service.api.pages import PageQueryDep, cut_page, page_response
from service.api.request_parsing import (
    JSON,
    ApiDeps,
    parse_choice,
    parse_flag,
    parse_id,
    read_body,
    wait_until_gone,
)
from service.api.schemas.dead_letters import (
    DeadLetterPage,
    ReplayRequest,
    ReplayView,
    dead_letter_view,
    replayed_view,
    summary_view,
)
from service.api_resources import ApiResources
from service.cancellation import Cancellation
from service.domain.dead_letter import DeadLetterCode, DeadLetterFilter, DeadLetterState
from service.server.responses import encode
from service.usecases.replay import ReplayResult

router = APIRouter(tags=["dead letters"])


@router.get("/dead-letters")
async def page(
    request: Request,
    api: ApiDeps,
    query: PageQueryDep,
    coupon_id: str | None = None,
    code: str | None = None,
    state: str | None = None,
) -> Response:
    """List dead letters, newest first, at most 500 a page; `cursor` is `next` of the previous page, `Link` leads there.

    Each has the first 200 characters of its errors. `GET /dead-letters/{dead_letter_id}` has them and its record in
    full.
    """
    filters = DeadLetterFilter(
        None if coupon_id is None else parse_id(coupon_id, "coupon_id"),
        None if code is None else parse_choice("code", code, DeadLetterCode),
        None if state is None else parse_choice("state", state, DeadLetterState),
    )
    found = await api.operators.run(api.dead_letters.list_page, filters, query.after, query.size + 1)
    shown, cursor = cut_page(found, query.size, attrgetter("id"))
    return page_response(request, DeadLetterPage([*map(summary_view, shown)], cursor))


@router.get("/dead-letters/{dead_letter_id}")
async def read(dead_letter_id: str, api: ApiDeps) -> Response:
    """Return a dead letter with its raw record, of at most 2 MiB, and the latest 100 actions taken on it."""
    number = parse_id(dead_letter_id, "dead_letter_id")
    return Response(await api.operators.run(_rendered, api, number), media_type=JSON)


@router.post("/dead-letters/replay")
async def replay_many(request: Request, api: ApiDeps, caller: CallerDep) -> Response:
    """Replay the new dead letters that match, in the order of their offsets; `dry_run` changes nothing.

    A dead letter that becomes new after a dry run matches, too: send the `ids` of its result to replay these only.
    A dry run ends early if the records have more than 32 MiB. Each API process runs one such replay at a time; another
    call is refused at once with 429 `too_busy`. A client that closes its connection ends the replay after a batch.
    """
    body = await read_body(request, ReplayRequest)
    filters = DeadLetterFilter(body.coupon_id, body.code, ids=body.ids)

    service = api.dead_letters.acting_as(caller.name)

    def replay(cancellation: Cancellation) -> list[ReplayResult]:
        return service.replay_many(filters, body.limit, dry_run=body.dry_run, cancellation=cancellation)

    results = await api.replays.run(replay, partial(wait_until_gone, request))
    return Response(encode(ReplayView(body.dry_run, [replayed_view(result) for result in results])), media_type=JSON)


@router.post("/dead-letters/{dead_letter_id}/replay")
async def replay(dead_letter_id: str, api: ApiDeps, caller: CallerDep, dry_run: str = "false") -> Response:
    """Replay a dead letter with its original offset; its eligibility is decided again. `dry_run` changes nothing.

    A repeat returns the result of the latest replay, and 409 `changed` if the request is dead again.
    """
    number = parse_id(dead_letter_id, "dead_letter_id")
    replay_one = partial(api.dead_letters.acting_as(caller.name).replay, number, dry_run=parse_flag("dry_run", dry_run))
    result = await api.operators.run(replay_one)
    return Response(encode(replayed_view(result)), media_type=JSON)


@router.post("/dead-letters/{dead_letter_id}/discard")
async def discard(dead_letter_id: str, api: ApiDeps, caller: CallerDep) -> Response:
    """Discard a dead letter; its request stays dead. A repeat returns the same result."""
    number = parse_id(dead_letter_id, "dead_letter_id")
    await api.operators.run(api.dead_letters.acting_as(caller.name).discard, number)
    return Response(await api.operators.run(_rendered, api, number), media_type=JSON)


def _rendered(api: ApiResources, number: int) -> bytes:
    """Return the body that shows a dead letter: megabytes, which are not encoded in the event loop."""
    return encode(dead_letter_view(*api.dead_letters.get(number)))
