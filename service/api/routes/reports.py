"""Routes that report how a coupon was sold, and export its requests."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from service.api.paged_response import PagedResponse
from service.api.pages import refuse_unknown_parameters
from service.api.request_parsing import JSON, ApiDeps, parse_choice, parse_id, wait_until_gone
from service.api.schemas.reports import coupon_report_view
from service.domain.request import RequestState
from service.server.responses import encode
from service.usecases.issuance_export import ExportFormat

router = APIRouter(tags=["reports"])

MEDIA_TYPES = {ExportFormat.CSV: "text/csv; charset=utf-8", ExportFormat.JSONL: "application/jsonl"}


@router.get("/coupons/{coupon_id}/report")
async def report(coupon_id: str, request: Request, api: ApiDeps) -> Response:
    """Report how the coupon was sold: counts by state and code, waits, the time to the sell-out, a series.

    The time it takes grows with the requests of the coupon. Each API process makes one report at a time; another call
    is refused at once with 429 `too_busy`. A client that closes its connection ends the report.
    """
    work = partial(api.reports.reporter.report, parse_id(coupon_id, "coupon_id"))
    found = await api.reports.reporting.run(work, partial(wait_until_gone, request))
    return Response(encode(coupon_report_view(found)), media_type=JSON)


async def _reserve_export(api: ApiDeps) -> AsyncIterator[None]:
    """Keep a place among the exports of this process until the response has ended, however it ends."""
    with api.reports.exports.reserve():
        yield


@router.get(
    "/coupons/{coupon_id}/issuances", dependencies=[Depends(refuse_unknown_parameters), Depends(_reserve_export)]
)
async def export(
    coupon_id: str,
    request: Request,
    api: ApiDeps,
    form: Annotated[str, Query(alias="format")] = ExportFormat.CSV,
    state: str | None = None,
) -> Response:
    """Stream every request of the coupon in the order of the log, as CSV or JSON lines.

    It has all requests that were decided when it began, with the state of each when its page was read. If it cannot be
    completed, the connection is closed without the last chunk, which clients report as an error. Each API process sends
    at most four exports at the same time; another call is refused at once with 429 `too_busy`.
    """
    number, chosen_form = parse_id(coupon_id, "coupon_id"), parse_choice("format", form, ExportFormat)
    chosen_state = None if state is None else parse_choice("state", state, RequestState)
    exports = api.reports.exports
    pages = await exports.run(api.reports.exporter.begin, number, chosen_form, chosen_state, exports.cancellation)
    headers = {
        "Content-Type": MEDIA_TYPES[chosen_form],
        "Content-Disposition": f'attachment; filename="coupon-{number}-issuances.{chosen_form}"',
    }
    return PagedResponse(request, exports, pages, headers)
