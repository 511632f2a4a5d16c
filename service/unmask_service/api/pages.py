"""Pages for browsers, under a strict Content-Security-Policy: the playground at `/`, Swagger UI at `/docs`."""

import base64
import hashlib
import re
from importlib.resources import files
from os import PathLike, stat_result
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

WEB = Path(__file__).parents[1] / "web"

# set here: the tables of some machines have another type for .js, and browsers run no such module
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PLAYGROUND_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # browsers ask again each time (an unchanged file is a 304): modules of two versions must not meet
    "Cache-Control": "no-cache",
}
SWAGGER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
ONE_HOUR = {"Cache-Control": "max-age=3600"}
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


class PageFiles(StaticFiles):
    """Static files with the playground's headers."""

    def file_response(
        self, full_path: str | PathLike[str], stat_result: stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        if response.status_code == status_code:  # a 304 has no content
            response.headers["Content-Type"] = MEDIA_TYPES.get(Path(full_path).suffix, "application/octet-stream")
        response.headers.update(PLAYGROUND_HEADERS)
        return response


def mount_playground(app: FastAPI) -> None:
    """Serve the playground at `/`, and its files under `/page/`. It uses nothing but the public API."""
    static = PageFiles(directory=WEB)

    @app.get("/", include_in_schema=False)
    @app.head("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        if prefix := request.scope.get("prefix"):
            return page_under(prefix)
        return await static.get_response("index.html", request.scope)

    app.mount("/page", static, name="page")


def page_under(prefix: str) -> Response:
    """The playground's page for a server under a path: its references hold with and without the path's last slash."""
    text = (WEB / "index.html").read_text(encoding="utf-8").replace("<head>", f'<head>\n  <base href="{prefix}/">', 1)
    policy = PLAYGROUND_HEADERS["Content-Security-Policy"].replace("base-uri 'none'", "base-uri 'self'")
    return HTMLResponse(text, headers={**PLAYGROUND_HEADERS, "Content-Security-Policy": policy})


def documentation_routes(title: str) -> APIRouter:
    """Swagger UI and its three files, for an application that was made with `docs_url=None, redoc_url=None`.

    Everything comes from this server, nothing from other hosts. All references are relative: a proxy may serve it
    under a path of its own.
    """
    router = APIRouter(include_in_schema=False)
    script, style, icon = (f"docs/{name}" for name in SWAGGER_FILES)
    page = get_swagger_ui_html(
        openapi_url="openapi.json", title=title, swagger_js_url=script, swagger_css_url=style, swagger_favicon_url=icon
    )
    page.headers["Content-Security-Policy"] = policy_of(page)
    router.add_api_route("/docs", lambda: page, response_model=None)
    for name in SWAGGER_FILES:
        _add_file(router, Path(str(files("fastapi_swagger") / "resources" / name)))
    return router


def policy_of(page: HTMLResponse) -> str:
    """The policy of Swagger UI: our script and its own inline one, our server, and nothing else.

    Swagger UI sets styles inline and draws icons from data: addresses.
    """
    digests = [hashlib.sha256(each.encode()).digest() for each in _INLINE_SCRIPT.findall(bytes(page.body).decode())]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _add_file(router: APIRouter, path: Path) -> None:
    async def file() -> FileResponse:
        return FileResponse(path, headers=ONE_HOUR)

    router.add_api_route(f"/docs/{path.name}", file, response_model=None)
