"""The page that shows a waiting user the state of a request, and its files: the same bytes for every request."""

from hashlib import blake2b
from importlib.resources import files
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Header, HTTPException, Response

from service.api.entity_tags import matches
from service.api.request_parsing import ApiDeps

router = APIRouter(include_in_schema=False)

_FOLDER = files("service.api").joinpath("wait_page")
#: the page finds its script by its address only, so that a later version of either replaces the other within minutes
_CACHE_SECONDS = 300
_HEADERS = {
    "Cache-Control": f"public, max-age={_CACHE_SECONDS}",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'self'"
)


class _File(NamedTuple):
    """A file as it is sent."""

    content: bytes
    media_type: str
    tag: str


def _load(name: str, media_type: str) -> _File:
    content = _FOLDER.joinpath(name).read_bytes()
    return _File(content, media_type, f'"{blake2b(content, digest_size=8).hexdigest()}"')


_WAIT = _load("wait.html", "text/html")
_FILES = {
    name: _load(name, media_type)
    for name, media_type in (
        ("wait.css", "text/css"),
        ("wait.js", "text/javascript"),
        ("wait_follow.js", "text/javascript"),
        ("wait_texts.js", "text/javascript"),
        ("wait.svg", "image/svg+xml"),
    )
}

IfNoneMatch = Annotated[str | None, Header()]


@router.get("/wait/{request_id}")
async def wait(request_id: str, api: ApiDeps, if_none_match: IfNoneMatch = None) -> Response:
    """Show the state of a request. The script takes the id from the address, and the ticket from its fragment."""
    del request_id
    policy = " ".join((_POLICY, *api.settings.allowed_origins))
    return _sent(_WAIT, if_none_match, {"Content-Security-Policy": policy})


@router.get("/wait-page/{name}")
async def read(name: str, if_none_match: IfNoneMatch = None) -> Response:
    """Return a file of the page."""
    if name not in _FILES:
        raise HTTPException(404)
    return _sent(_FILES[name], if_none_match)


def _sent(file: _File, if_none_match: str | None, headers: dict[str, str] | None = None) -> Response:
    """Return the file, or 304 if the client has it."""
    tagged = {**_HEADERS, **(headers or {}), "ETag": file.tag}
    if matches(file.tag, if_none_match):
        return Response(status_code=304, headers=tagged)
    return Response(file.content, headers=tagged, media_type=file.media_type)
