"""A server under a path: which part of a path is the proxy's, whose word for it counts, and the page that shows it."""

from pathlib import Path
from urllib.parse import urljoin

import pytest
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from unmask_service.api import PrefixMiddleware
from unmask_service.api.pages import WEB, page_under
from unmask_service.api.prefix import prefix_of
from unmask_service.settings import SettingsError, read_settings

from tests.helpers_asgi import Pairs, ask
from tests.helpers_server import Server

HEADER = b"x-forwarded-prefix"
LOOPBACK = "127.0.0.1,::1"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse([scope["prefix"], scope["path"]])(scope, receive, send)


def seen(
    path: str, headers: Pairs = (), root_path: str = "", trusted: str = LOOPBACK, client: str | None = "127.0.0.1"
) -> list[str]:
    """The prefix and the path that the application sees."""
    inner = PrefixMiddleware(echo, root_path, trusted)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await inner({**scope, "client": None if client is None else (client, 1)}, receive, send)

    found: list[str] = ask(app, path, headers=headers).json()
    return found


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/llm/v1/models", "/v1/models"),
        ("/llm/", "/"),
        ("/llm", "/"),
        ("/v1/models", "/v1/models"),  # the proxy has removed it
        ("/", "/"),
        ("/llmore/v1/models", "/llmore/v1/models"),
        ("/llm/llm/docs", "/llm/docs"),
    ],
)
def test_the_root_path_is_taken_off_where_a_path_begins_with_it(path: str, inside: str) -> None:
    assert seen(path, root_path="/llm") == ["/llm", inside]


def test_without_settings_and_headers_nothing_changes() -> None:
    assert seen("/llm/docs") == ["", "/llm/docs"]


def test_a_trusted_proxy_names_what_it_has_removed() -> None:
    assert seen("/llm/docs", [(HEADER, b"/a/llm")], root_path="/llm") == ["/a/llm", "/llm/docs"]


@pytest.mark.parametrize(
    ("trusted", "client", "believed"),
    [
        (LOOPBACK, "127.0.0.1", True),
        (LOOPBACK, "::1", True),
        (LOOPBACK, "::ffff:127.0.0.1", True),
        (LOOPBACK, "10.0.0.7", False),
        (LOOPBACK, None, False),
        ("10.0.0.0/8,fd00::/8", "10.9.8.7", True),
        ("10.0.0.0/8,fd00::/8", "fd00::7", True),
        ("10.0.0.0/8,fd00::/8", "127.0.0.1", False),
        ("10.0.0.0/8", "no address", False),
        ("", "127.0.0.1", False),
        ("*", "10.0.0.7", True),
        ("*", None, True),
    ],
)
def test_only_trusted_proxies_are_believed(trusted: str, client: str | None, believed: bool) -> None:
    assert seen("/docs", [(HEADER, b"/llm")], trusted=trusted, client=client)[0] == ("/llm" if believed else "")


@pytest.mark.parametrize(
    ("headers", "prefix"),
    [
        (["/llm"], "/llm"),
        (["/llm/"], "/llm"),
        (["/"], ""),
        (["/a, /b"], "/a/b"),
        (["/a", "/b"], "/a/b"),
        (["llm"], None),
        (["//evil.example"], None),
        (["/../up"], None),
        (["/a/.hidden"], None),
        (['/"><script>'], None),
        (["https://evil.example"], None),
        (["/a\n"], "/a"),  # of no proxy: HTTP allows no such byte
        (["/" + 200 * "a"], None),
    ],
)
def test_a_prefix_is_a_plain_path(headers: list[str], prefix: str | None) -> None:
    assert prefix_of(headers) == prefix


@pytest.mark.parametrize("value", ["llm", "/llm/", "/a//b", "/..", "/a?b", "https://example.org/llm"])
def test_a_root_path_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="--root-path"):
        read_settings(root_path=value)


@pytest.mark.parametrize("value", ["example.org", "10.0.0.1/8", "10.0.0.0/33"])
def test_trusted_proxies_are_addresses(value: str) -> None:
    with pytest.raises(SettingsError, match=r"--trusted-proxies: .*10|--trusted-proxies: .*example\.org"):
        read_settings(trusted_proxies=value)
    assert read_settings(trusted_proxies="10.0.0.0/8, ::1").trusted_proxies == "10.0.0.0/8,::1"


def test_the_page_finds_its_files_without_the_last_slash() -> None:
    """A proxy such as Traefik asks for `/` where the browser has asked for `/llm`."""
    page = page_under("/llm")
    text = bytes(page.body).decode()
    assert text.replace('\n  <base href="/llm/">', "") == (WEB / "index.html").read_text()
    assert text.index("<base") < text.index("href=")
    assert urljoin(urljoin("http://example.org/llm", "/llm/"), "page/main.js") == "http://example.org/llm/page/main.js"
    assert "base-uri 'self'" in page.headers["Content-Security-Policy"]


def test_a_server_under_a_path(bundles: Path) -> None:
    """Pages, keys' exceptions, locations: all of it below the prefix, whether the proxy has removed it or not."""
    with Server(bundles / "table", "--root-path", "/llm") as server:
        server.until_ready()
        for base in (server.url, f"{server.url}/llm"):
            assert server.http.get(f"{base}/health").json() == {"status": "ok"}
            accepted = server.http.post(f"{base}/generate", json={"max_tokens": 2, "detach": True})
            assert accepted.status_code == 202
            location = urljoin(f"{base}/generate", accepted.headers["Location"])
            assert location.startswith(f"{base}/generate/gen-")
            assert server.http.get(location).json()["id"] == accepted.json()["id"]
            assert '<base href="/llm/">' in server.http.get(f"{base}/").text
            assert "swagger-ui" in server.http.get(f"{base}/docs").text
            assert server.http.get(f"{base}/docs/swagger-ui.css").status_code == 200
            assert server.http.get(f"{base}/page/main.js").status_code == 200
            assert server.http.get(f"{base}/openapi.json").json()["servers"] == [{"url": "."}]
        assert server.http.get("/llm").status_code == 200
