"""Routes of the pages to which the `type` of a problem leads. They are no operations of the OpenAPI document."""

from http import HTTPStatus

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse

from service.api.problem_pages import PAGE_HEADERS, render_index, render_problem
from service.domain.error_code import ErrorCode
from service.server.problems import PROBLEMS, PROBLEMS_PATH

router = APIRouter(prefix=PROBLEMS_PATH, include_in_schema=False)


@router.get("")
async def index() -> HTMLResponse:
    """List all problems."""
    return HTMLResponse(render_index(), headers=PAGE_HEADERS)


@router.get("/{code}")
async def page(code: str) -> HTMLResponse:
    """Explain the problem with this code."""
    if code not in PROBLEMS:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return HTMLResponse(render_problem(ErrorCode(code)), headers=PAGE_HEADERS)
