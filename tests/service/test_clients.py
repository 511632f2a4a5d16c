"""Real clients of OpenAI's API against a real server, and the snippets of the documents."""

import contextlib
import gc
import io
import json
import re
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.helpers import SCRIBES_TEXT
from tests.helpers_server import Server

CLIENTS = Path(__file__).parents[2] / "docs" / "clients.md"


def client_of(server: Server, **options: Any) -> OpenAI:  # noqa: ANN401 — of the client
    return OpenAI(base_url=server.url + "/v1", api_key="none", timeout=300, **options)


def test_completions(scribe: Server) -> None:
    with client_of(scribe) as client:
        answer = client.completions.create(model="scribe", prompt="A", max_tokens=30, n=2, logprobs=1)
        assert [choice.text for choice in answer.choices] == [SCRIBES_TEXT[1:]] * 2
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == 1
        several = client.completions.create(model="scribe", prompt=["A", "Ab"], max_tokens=26, stop=["-st"])
        before = SCRIBES_TEXT.index("-st")
        assert [choice.text for choice in several.choices] == [SCRIBES_TEXT[1:before], SCRIBES_TEXT[2:before]]


def test_streams(scribe: Server) -> None:
    with client_of(scribe) as client:
        texts, usage = ["", ""], None
        for chunk in client.completions.create(
            model="scribe", prompt="A", max_tokens=30, n=2, stream=True, stream_options={"include_usage": True}
        ):
            usage = chunk.usage
            for choice in chunk.choices:
                texts[choice.index] += choice.text
        assert texts == [SCRIBES_TEXT[1:]] * 2
        assert usage is not None


def test_chats(scribe: Server) -> None:
    with client_of(scribe) as client:
        answer = client.chat.completions.create(
            model="scribe", messages=[{"role": "user", "content": "Ab"}], max_tokens=29
        )
        assert answer.choices[0].message.content == SCRIBES_TEXT[2:]
        pieces = ""
        for chunk in client.chat.completions.create(
            model="scribe", messages=[{"role": "user", "content": "Ab"}], max_completion_tokens=29, stream=True
        ):
            pieces += chunk.choices[0].delta.content or ""
        assert pieces == SCRIBES_TEXT[2:]


def test_errors(scribe: Server, writer: Server) -> None:
    with client_of(scribe) as client:
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="gpt-4", prompt="A")
        with pytest.raises(openai.BadRequestError, match="best_of"):
            client.completions.create(model="scribe", prompt="A", best_of=2)
        with pytest.raises(openai.APIError, match="zero"):
            list(client.completions.create(model="scribe", prompt="zA", max_tokens=3, stream=True))
        assert client.models.list().data[0].id == "scribe"
        assert client.models.retrieve("scribe").id == "scribe"
    with client_of(writer) as client, pytest.raises(openai.BadRequestError, match="chat template"):
        client.chat.completions.create(model="writer", messages=[{"role": "user", "content": "a"}])


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_langchain(scribe: Server) -> None:
    langchain = pytest.importorskip("langchain_openai")
    common: dict[str, Any] = {"base_url": scribe.url + "/v1", "api_key": "none", "model": "scribe"}
    model = langchain.OpenAI(**common, max_tokens=30, temperature=1.0)
    assert model.invoke("A") == SCRIBES_TEXT[1:]
    assert "".join(model.stream("A")) == SCRIBES_TEXT[1:]
    chat = langchain.ChatOpenAI(**common, max_tokens=29)
    assert chat.invoke("Ab").content == SCRIBES_TEXT[2:]
    del model, chat
    gc.collect()  # it leaves its connections open


# what the load tests of other servers send, byte for byte, and how they read the answer
VLLM_COMPLETIONS = (
    b'{"model": "scribe", "prompt": "A", "repetition_penalty": 1.0, "max_tokens": 9, "logprobs": null, "stream": true, '
    b'"stream_options": {"include_usage": true}, "ignore_eos": true, "temperature": 0.0}'
)
VLLM_CHAT = (
    b'{"model": "scribe", "messages": [{"role": "user", "content": [{"type": "text", "text": "A"}]}], '
    b'"max_completion_tokens": 9, "stream": true, "stream_options": {"include_usage": true}, "ignore_eos": true}'
)
SGLANG_COMPLETIONS = (
    b'{"model": "scribe", "prompt": "A", "temperature": 0.0, "best_of": 1, "max_tokens": 9, "stream": true, '
    b'"ignore_eos": true}'
)
SGLANG_CHAT = (
    b'{"model": "scribe", "messages": [{"role": "user", "content": "A"}], "temperature": 0.0, "stream": true, '
    b'"presence_penalty": 0.0, "frequency_penalty": 0.0, "top_p": 1.0, "ignore_eos": true, "max_tokens": 9}'
)


def sent(server: Server, path: str, body: bytes) -> bytes:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer none", "x-request-id": "bench-1"}
    response = server.http.post(path, content=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.content


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/completions", VLLM_COMPLETIONS), ("/v1/chat/completions", VLLM_CHAT)], ids=["text", "chat"]
)
def test_vllm_bench_serve(scribe: Server, path: str, body: bytes) -> None:
    """It splits at empty lines; the count of tokens is in a chunk without choices."""
    text, usage = "", None
    for message in sent(scribe, path, body).decode().split("\n\n"):
        chunk = message.strip().removeprefix("data:").strip()
        if not chunk or chunk == "[DONE]":
            continue
        data = json.loads(chunk)
        if choices := data.get("choices"):
            text += (choices[0].get("text") or "") if "text" in choices[0] else choices[0]["delta"].get("content") or ""
        elif found := data.get("usage"):
            usage = found["completion_tokens"]
    assert SCRIBES_TEXT[1:].startswith(text)
    assert usage == 9
    assert scribe.http.get("/v1/models").json()["data"][0]["root"]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/completions", SGLANG_COMPLETIONS), ("/v1/chat/completions", SGLANG_CHAT)],
    ids=["text", "chat"],
)
def test_sglang_bench_serving(scribe: Server, path: str, body: bytes) -> None:
    """It reads every line that is not empty, and the first choice of each."""
    text = ""
    for line in sent(scribe, path, body).splitlines():
        chunk = line.strip().decode().removeprefix("data: ")
        if chunk and chunk != "[DONE]":
            choice = json.loads(chunk)["choices"][0]
            text += choice["text"] if "text" in choice else choice["delta"].get("content", "")
    assert text
    assert SCRIBES_TEXT[1:].startswith(text)


def snippets() -> list[str]:
    found = re.findall(r"^```python\n(.*?)^```", CLIENTS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [each for each in found if "/v1" in each]


@pytest.fixture(scope="module")
def tales() -> Any:  # noqa: ANN401 — a generator
    with Server(Path("tales")) as server:
        yield server.until_ready()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("snippet", snippets(), ids=lambda text: text.split()[1])
def test_snippets_run(tales: Server, snippet: str) -> None:
    if "langchain" in snippet:
        pytest.importorskip("langchain_openai")
    code = compile(snippet.replace("http://127.0.0.1:8000", tales.url), "docs/clients.md", "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})  # noqa: S102 — our own document
    gc.collect()  # they leave their connections open
    assert printed.getvalue().strip()
