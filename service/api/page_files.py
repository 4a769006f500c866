"""The files of a page that the API serves from its package: the same bytes for everybody, without a build step."""

from collections.abc import Mapping
from hashlib import blake2b
from importlib.resources import files
from typing import NamedTuple

from fastapi import HTTPException, Response

from service.api.entity_tags import matches

#: a page finds its scripts by their addresses only, so that a later version of either replaces the other within minutes
_CACHE_SECONDS = 300
_HEADERS = {
    "Cache-Control": f"public, max-age={_CACHE_SECONDS}",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
#: what a page may load and do, whoever may frame it: no inline script or style, and nothing of another host
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors"
)


class _File(NamedTuple):
    """A file as it is sent."""

    content: bytes
    media_type: str
    tag: str


class PageFiles:
    """The HTML files and the assets of one folder of this package, read once."""

    def __init__(self, folder: str) -> None:
        self._files = {
            file.name: _File(content, _MEDIA_TYPES[suffix], f'"{blake2b(content, digest_size=8).hexdigest()}"')
            for file in files(__package__).joinpath(folder).iterdir()
            if (suffix := file.name.rpartition(".")[2]) in _MEDIA_TYPES
            for content in (file.read_bytes(),)
        }

    def send_page(self, name: str, if_none_match: str | None, policy: str) -> Response:
        """Return an HTML file with its Content-Security-Policy, or 304 if the client has it."""
        return _sent(self._files[name], if_none_match, {"Content-Security-Policy": policy})

    def send_asset(self, name: str, if_none_match: str | None) -> Response:
        """Return a file that a page loads, or 304 if the client has it; raise HTTPException 404."""
        if name not in self._files or name.endswith(".html"):
            raise HTTPException(404)
        return _sent(self._files[name], if_none_match, {})


def _sent(file: _File, if_none_match: str | None, headers: Mapping[str, str]) -> Response:
    tagged = {**_HEADERS, **headers, "ETag": file.tag}
    if matches(file.tag, if_none_match):
        return Response(status_code=304, headers=tagged)
    return Response(file.content, headers=tagged, media_type=file.media_type)
