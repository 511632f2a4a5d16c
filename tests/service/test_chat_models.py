"""Chats with imported models of LLaDA's and Dream's families: tiny ones, with the real client."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from unmask_diffusion import GenerationSettings, Sampler
from unmask_model_store import open_outline, read_text_settings
from unmask_model_store.importers import Request, import_checkpoint
from unmask_service.api.chat_template import ChatRenderer

from tests.helpers_server import Body, Server

GOLDEN = Path(__file__).parents[1] / "golden"
RENDERINGS: dict[str, Any] = json.loads((GOLDEN / "chat_renderings.json").read_text())
OFFICIAL = {"L": "LLaDA-8B-Instruct (tokenizer_config.json)", "R": "Dream-v0-Instruct-7B (tokenizer_config.json)"}
LENGTH = {"L": 64, "R": 2048}
TOKENS = 8


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("chats")
    for name in OFFICIAL:
        import_checkpoint(Request(GOLDEN / f"tiny_{name}", folder / name))
    return {name: folder / name for name in OFFICIAL}


@pytest.fixture(scope="module")
def server(folders: dict[str, Path]) -> Iterator[Server]:
    with Server(folders["L"], "--model", str(folders["R"])) as server:
        yield server.until_ready()


def test_what_the_authors_publish_is_recommended(folders: dict[str, Path]) -> None:
    found = {name: open_outline(folder).config.generation for name, folder in folders.items()}
    llada = Sampler(name="confidence", block_length=32)
    dream = Sampler(name="entropy", cut="dream")
    assert found["L"] == GenerationSettings(temperature=0.0, sampler=llada)
    assert found["R"] == GenerationSettings(temperature=0.2, top_p=0.95, sampler=dream)


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_imported_template_renders_as_the_official_one(folders: dict[str, Path], name: str) -> None:
    texts = read_text_settings(open_outline(folders[name]))
    assert texts.chat_template is not None
    (official,) = (each for each in RENDERINGS["templates"] if each["template"] == OFFICIAL[name])
    with contextlib.closing(ChatRenderer()) as renderer:
        for each in official["renderings"]:
            context = {"messages": each["messages"], "add_generation_prompt": each["add_generation_prompt"]}
            context |= {"bos_token": texts.bos_token, "eos_token": texts.eos_token}
            assert renderer.render(texts.chat_template, context) == each["text"]


@pytest.mark.parametrize("name", OFFICIAL)
def test_chats_have_the_official_ids(server: Server, name: str) -> None:
    """And the same answer as the rendered prompt has with the model's settings."""
    seen = 0
    recommended = server.http.get(f"/v1/models/{name}").json()["generation"]
    with OpenAI(base_url=server.url + "/v1", api_key="none", timeout=300) as client:
        for chat in json.loads((GOLDEN / f"tiny_{name}.json").read_text())["chats"]:
            if len(chat["ids"]) + TOKENS > LENGTH[name]:
                continue
            asked: Any = {"model": name, "messages": chat["messages"], "max_tokens": TOKENS, "seed": 3}
            answer = client.chat.completions.create(**asked)
            assert answer.usage is not None
            assert answer.usage.prompt_tokens == len(chat["ids"])
            body: Body = {"model": name, "prompt": chat["ids"], "max_tokens": TOKENS, "seed": 3, **recommended}
            (native,) = server.generate(**body)["choices"]
            assert answer.choices[0].message.content == native["text"]
            assert answer.choices[0].finish_reason == native["finish_reason"]
            pieces = [
                choice.delta.content or ""
                for chunk in client.chat.completions.create(**asked, stream=True)
                for choice in chunk.choices
            ]
            assert "".join(pieces) == native["text"]
            seen += 1
    assert seen >= 2


def test_the_card_says_what_ends_a_text(server: Server) -> None:
    cards = {card["id"]: card for card in server.http.get("/v1/models").json()["data"]}
    assert (cards["L"]["end_token_id"], cards["L"]["end_token_ids"]) == (301, [301, 324])
    assert cards["R"]["end_token_ids"] == [300, 302]
    assert server.http.get("/v1/models/L/card").text.startswith("# L\n\nModel of LLaDA, imported by")
