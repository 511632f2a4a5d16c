"""Behind a proxy that serves us under a path of its own, such as `/llm`: the application sees paths without it.

Answers need no prefix: every reference in pages and every `Location` is relative. Only the playground's own page must
know it, since a browser may have asked for it without the last slash.
"""

import ipaddress
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from unmask_service.settings import PATH

FORWARDED_PREFIX = "x-forwarded-prefix"
LONGEST_PREFIX = 200  # characters


class PrefixMiddleware:
    """Takes the prefix off each request's path, and keeps it in `scope["prefix"]`.

    `root_path` is taken off where the path begins with it, so a proxy may remove it or not. Of a proxy in
    `trusted_proxies` (addresses, networks or `*`, separated by commas) X-Forwarded-Prefix takes precedence: it names
    what the proxy has removed.
    """

    def __init__(self, app: ASGIApp, root_path: str, trusted_proxies: str) -> None:
        self._app, self._root_path = app, root_path
        listed = trusted_proxies.split(",")
        self._everybody = "*" in listed
        self._trusted = [ipaddress.ip_network(each) for each in listed if each not in ("*", "")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, **self._without_prefix(scope)}
        await self._app(scope, receive, send)

    def _without_prefix(self, scope: Scope) -> dict[str, str]:
        path: str = scope["path"]
        forwarded = Headers(scope=scope).getlist(FORWARDED_PREFIX)
        if forwarded and self._trusts(scope) and (removed := prefix_of(forwarded)) is not None:
            return {"path": path, "prefix": removed}
        if self._root_path and f"{path}/".startswith(f"{self._root_path}/"):
            path = path.removeprefix(self._root_path) or "/"
        return {"path": path, "prefix": self._root_path}

    def _trusts(self, scope: Scope) -> bool:
        if self._everybody or scope.get("client") is None:
            return self._everybody
        try:
            address = ipaddress.ip_address(scope["client"][0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:  # of a socket for both
            address = address.ipv4_mapped
        return any(address in network for network in self._trusted)


def prefix_of(forwarded: Sequence[str]) -> str | None:
    """The prefix that X-Forwarded-Prefix headers name, the outermost proxy's first; None where they name no path."""
    parts = [part.strip().rstrip("/") for header in forwarded for part in header.split(",")]
    prefix = "".join(parts)
    return prefix if len(prefix) <= LONGEST_PREFIX and re.fullmatch(PATH, prefix) else None
