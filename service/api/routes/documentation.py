"""The page about the API, from files of this installation: it loads without access to other hosts.

Its references are relative, so that they are right below every path, and whether a proxy ends TLS or not.
"""

from collections.abc import Callable
from importlib.resources import files
from pathlib import PurePosixPath

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, RedirectResponse

from service.api.authorization import DOCUMENTATION_FILES

router = APIRouter(include_in_schema=False)
_PARAMETERS = {"tryItOutEnabled": True, "persistAuthorization": True, "filter": True, "displayRequestDuration": True}


@router.get("/")
async def redirect() -> Response:
    """Lead to the page."""
    return RedirectResponse("/docs")


@router.get("/docs")
async def page(request: Request) -> HTMLResponse:
    """Return Swagger's page, which reads /openapi.json."""
    script, style, icon = (path[1:] for path in DOCUMENTATION_FILES)
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title=f"{request.app.title} - Swagger UI",
        swagger_js_url=script,
        swagger_css_url=style,
        swagger_favicon_url=icon,
        swagger_ui_parameters=_PARAMETERS,
    )


def _reader(path: str, media_type: str) -> Callable[[], Response]:
    file = files("fastapi_swagger.resources").joinpath(PurePosixPath(path).name)

    def read() -> Response:
        """Return a file that the page loads."""
        return Response(file.read_bytes(), media_type=media_type)

    return read


for _path, _media_type in DOCUMENTATION_FILES.items():
    router.add_api_route(_path, _reader(_path, _media_type))
