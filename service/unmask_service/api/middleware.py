"""What lies between the socket and the application, from the outside in: headers of every answer, CORS, API keys.

It lies around the whole application, so that an answer to an exception goes through it too.
"""

import re
from collections.abc import Sequence
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unmask_service.api.bodies import discard_body
from unmask_service.api.errors import RefusedError, count_rejection, error_response
from unmask_service.api_keys import ApiKey, Quota, current_quota, quota_of
from unmask_service.logs import add_context, begin_context
from unmask_service.metrics import Metrics

REQUEST_ID = "X-Request-ID"
# an answer's own header wins; a page sets the policy that it needs
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the addresses of generations are private
    "Cache-Control": "no-store",  # so are their texts, and states change
}
METHODS = ("GET", "POST", "DELETE")
HEADERS_OUT = ("Location", "Retry-After", REQUEST_ID, "x-unmask-seed", "x-unmask-id", "x-unmask-network-evaluations")
CHALLENGE = 'Bearer realm="unmask"'

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
# https://www.w3.org/TR/trace-context/
_TRACEPARENT = re.compile(
    "(?!ff)(?P<version>[0-9a-f]{2})"
    "-(?!0{32})(?P<trace>[0-9a-f]{32})"
    "-(?!0{16})(?P<parent>[0-9a-f]{16})"
    "-(?P<flags>[0-9a-f]{2})"
    "(?P<more>-.*)?"  # of later versions
)
# what monitoring reads, and pages, for which browsers send no key: these show nothing but software
_OPEN = re.compile(r"/(health|ready|openapi\.json|docs(/.*)?|page/.*|)")


def with_middleware(
    app: ASGIApp, metrics: Metrics, keys: Sequence[ApiKey] = (), cors_origins: Sequence[str] = ()
) -> ASGIApp:
    """An application behind its middleware.

    Without `keys` no API key is needed. `cors_origins` are the origins of the pages that may use the service from
    browsers; `*` allows all origins.
    """
    if keys:
        app = AccessMiddleware(app, metrics, keys)
    if cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=cors_origins,
            allow_methods=METHODS,
            allow_headers=["*"],  # client libraries and tracers add headers of their own; none but ours means anything
            allow_private_network=True,  # a listed origin may be a public page that uses a server at home
            expose_headers=HEADERS_OUT,
        )
    return HeadersMiddleware(app)


class HeadersMiddleware:
    """Gives each request its id, in log lines and on the answer, and each answer its security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = request_id_of(headers)
        # Not undone at the end: the server logs exceptions after this has returned, in this context, which belongs to
        # the request alone.
        begin_context(request_id=request_id, trace_id=trace_id_of(headers))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                answer = MutableHeaders(scope=message)
                answer[REQUEST_ID] = request_id
                if "transfer-encoding" in headers and "content-length" in headers:
                    answer["Connection"] = "close"  # proxies may disagree about where the body ends (RFC 9112, 6.3)
                for name, value in SECURITY_HEADERS.items():
                    answer.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def request_id_of(headers: Headers) -> str:
    """The client's own id if it sends one of at most 128 visible ASCII characters, else a new one."""
    match headers.getlist(REQUEST_ID):
        case [given] if _REQUEST_ID.fullmatch(given):
            return given
    return f"req-{uuid4().hex}"


def trace_id_of(headers: Headers) -> str | None:
    """The trace that the request is a part of, 32 hexadecimal digits; None without one valid `traceparent` header."""
    match headers.getlist("traceparent"):
        case [given] if found := _TRACEPARENT.fullmatch(given):
            return None if found["version"] == "00" and found["more"] else found["trace"]
    return None


class AccessMiddleware:
    """Lets requests with an API key through, with its name in log lines; others get a 401 before anything is read."""

    def __init__(self, app: ASGIApp, metrics: Metrics, keys: Sequence[ApiKey]) -> None:
        self._app, self._metrics, self._keys = app, metrics, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            quota = quota_shown(headers, self._keys)
        except RefusedError as error:
            count_rejection(self._metrics, Request(scope), error)
            await discard_body(headers, receive)
            await error_response(error)(scope, receive, send)
            return
        add_context(client=quota.client)
        current_quota.set(quota)
        await self._app(scope, receive, send)


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return _OPEN.fullmatch(path) is not None


def quota_shown(headers: Headers, keys: Sequence[ApiKey]) -> Quota:
    """The quota of the key that a request shows (https://www.rfc-editor.org/rfc/rfc6750). Raises RefusedError."""
    given = headers.getlist("authorization")
    scheme, _, key = given[0].strip().partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not key.strip():
        message, challenge = "this server needs an API key: send the header Authorization: Bearer KEY", CHALLENGE
        raise RefusedError("missing_api_key", message, "Authorization", headers={"WWW-Authenticate": challenge})
    quota = quota_of(key.strip().encode("latin-1"), keys)
    if quota is None:
        message, challenge = "the API key is not known here", f'{CHALLENGE}, error="invalid_token"'
        raise RefusedError("invalid_api_key", message, "Authorization", headers={"WWW-Authenticate": challenge})
    return quota
