"""`POST /v1/chat/completions`, and the sandbox in which a model's template is rendered."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unmask_model_store import BundleError, open_outline, read_text_settings
from unmask_service.api.chat_template import ChatRenderer, ChatTemplateError
from unmask_service.chat_renderer import MOST_CHARACTERS

from tests.helpers import SCRIBES_TEXT
from tests.helpers_server import Body, Server
from tests.service.test_completions import Chunks, chunks_of

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "chat_renderings.json").read_text())
# written after what the official templates render
TEMPLATES = {
    "LLaDA-8B-Instruct (tokenizer_config.json)": (
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + "
        "(m.content | trim) + '<|eot_id|>' }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    ),
    "LLaDA as dllm repairs it": (
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + "
        "(m.content | trim) + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt and messages[-1].role == 'user' %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
    ),
    "dllm's BERT-chat": (
        "{% set marks = {'system': 'SYS', 'user': 'Question', 'assistant': 'Answer'} %}{% for m in messages %}"
        "{{ '[' + marks[m.role] + ']\\n' + (m.content | trim) + '\\n[/' + marks[m.role] + ']\\n\\n' }}{% endfor %}"
        "{% if add_generation_prompt and messages[-1].role == 'user' %}{{ '[Answer]\\n' }}{% endif %}"
    ),
    "Dream-v0-Instruct-7B (tokenizer_config.json)": (
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
        "{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
}
SAID = SCRIBES_TEXT[:2]


@pytest.fixture(scope="module")
def renderer() -> Iterator[ChatRenderer]:
    renderer = ChatRenderer()
    yield renderer
    renderer.close()


# --- templates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_render_as_transformers_does(renderer: ChatRenderer, name: str) -> None:
    (golden,) = (each for each in GOLDEN["templates"] if each["template"] == name)
    assert len(golden["renderings"]) == 10
    for each in golden["renderings"]:
        context = {"messages": each["messages"], "add_generation_prompt": each["add_generation_prompt"]}
        assert renderer.render(TEMPLATES[name], context | {"bos_token": "<|startoftext|>"}) == each["text"]


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{% for _ in range(99999) %}{% for _ in range(99999) %}{% endfor %}{% endfor %}", "processor time"),
        ("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError|processor time"),
        ("{{ 'a' * 10 ** 10 }}", "MemoryError|memory"),
        ("{{ '%1000000000s' % 1 }}", "MemoryError|memory"),
        ("{{ 'a' * 2000000 }}", f"{MOST_CHARACTERS} characters"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os.popen('touch /tmp/here').read() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "loader"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].role.first.second }}", "UndefinedError"),
        ("{% if %}", "TemplateSyntaxError"),
    ],
)
def test_what_a_template_may_not_do(renderer: ChatRenderer, template: str, complaint: str) -> None:
    with pytest.raises(ChatTemplateError, match=complaint):
        renderer.render(template, {"messages": [{"role": "user", "content": "a"}]})
    assert renderer.render("{{ messages[0].content }}", {"messages": [{"content": "still here"}]}) == "still here"


def test_what_templates_use(renderer: ChatRenderer) -> None:
    messages = [{"role": "user", "content": each} for each in ("a<b é", "c")]
    assert renderer.render("{{ messages | tojson }}", {"messages": messages}) == json.dumps(
        messages, ensure_ascii=False
    )
    loop = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% endfor %}"
    assert renderer.render(loop, {"messages": messages}) == "a<b é"
    assert len(renderer.render("{{ strftime_now('%Y') }}", {})) == 4


def test_where_a_template_comes_from(bundles: Path, tmp_path: Path) -> None:
    """A file of its own wins over the tokenizer's; of several with names, the default one counts."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((bundles / "writer" / name).read_bytes())

    def template() -> str | None:
        return read_text_settings(open_outline(folder)).chat_template

    assert template() is None
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "one", "bos_token": {"content": "<s>"}, "more": [1]}))
    settings = read_text_settings(open_outline(folder))
    assert (settings.chat_template, settings.bos_token, settings.eos_token) == ("one", "<s>", "<|end|>")
    named = [{"name": "tool_use", "template": "two"}, {"name": "default", "template": "three"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert template() == "three"
    (folder / "chat_template.jinja").write_text("four")
    assert template() == "four"
    for broken in ("{", "[]", '{"bos_token": 7}'):
        config.write_text(broken)
        with pytest.raises(BundleError, match=r"tokenizer_config\.json"):
            template()


# --- over HTTP -------------------------------------------------------------------------------------------------------


def chat(server: Server, *said: str, **body: Any) -> Body:  # noqa: ANN401 — JSON
    messages = [{"role": "user", "content": each} for each in said]
    response = server.http.post("/v1/chat/completions", json={"messages": messages} | body)
    assert response.status_code == 200, response.text
    answer: Body = response.json()
    return answer


def test_an_answer_has_the_fields_of_openai(scribe: Server) -> None:
    answer = chat(scribe, *SAID, max_tokens=29)
    assert set(answer) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": SCRIBES_TEXT[2:], "refusal": None}
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "stop")
    assert answer["usage"]["prompt_tokens"] == 2


def test_log_probabilities_of_a_chat(scribe: Server) -> None:
    (choice,) = chat(scribe, SAID, max_tokens=29, logprobs=True, top_logprobs=1)["choices"]
    content = choice["logprobs"]["content"]
    assert "".join(each["token"] for each in content) == SCRIBES_TEXT[2:]
    assert {each["logprob"] for each in content} == {0.0}
    assert content[-1]["top_logprobs"] == [{"token": "z", "logprob": 0.0, "bytes": [122]}]
    body = {"messages": [{"role": "user", "content": SAID}], "top_logprobs": 1}
    assert scribe.http.post("/v1/chat/completions", json=body).json()["error"]["param"] == "top_logprobs"


def test_fields_of_a_chat(scribe: Server) -> None:
    parts = [{"type": "text", "text": each} for each in SAID]
    neutral: Body = {"tools": [], "tool_choice": "none", "logprobs": False, "store": False, "modalities": ["text"]}
    body: Body = {"messages": [{"role": "user", "content": parts}], "max_completion_tokens": 29, "n": 2, **neutral}
    answer = scribe.http.post("/v1/chat/completions", json=body | {"stop": "-st"}).json()
    cut = SCRIBES_TEXT[2 : SCRIBES_TEXT.index("-st")]
    assert [choice["message"]["content"] for choice in answer["choices"]] == [cut, cut]
    sent_back: Body = {"role": "assistant", "content": SAID, "refusal": None, "tool_calls": None, "annotations": []}
    again = scribe.http.post("/v1/chat/completions", json={"messages": [sent_back], "max_tokens": 3})
    assert again.status_code == 200, again.text


def pieces(chunks: Chunks) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


def test_a_stream(scribe: Server) -> None:
    body: Body = {"messages": [{"role": "user", "content": SAID}], "max_tokens": 29}
    usage = {"stream_options": {"include_usage": True}}
    first, *chunks, last = chunks_of(scribe, "/v1/chat/completions", **body, **usage)
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert pieces(chunks) == SCRIBES_TEXT[2:]
    assert [choice["finish_reason"] for choice in chunks[-1]["choices"]] == ["stop"]
    assert (last["choices"], last["usage"]["prompt_tokens"]) == ([], 2)
    shown = chunks_of(scribe, "/v1/chat/completions", **body, diffusing=True)
    whole = [chunk["choices"][0]["diffusion_content"] for chunk in shown]
    assert whole == [chunk["choices"][0]["delta"]["content"] for chunk in shown]
    assert [chunk["choices"][0]["delta"].get("role") for chunk in shown[:2]] == ["assistant", None]
    assert whole[0] == 29 * "░"
    assert whole[-1] == SCRIBES_TEXT[2:]


@pytest.mark.parametrize("said", ["loop", "raise", "reach"])
def test_a_template_that_misbehaves_is_a_bad_request(scribe: Server, said: str) -> None:
    body = {"messages": [{"role": "user", "content": said}]}
    for _ in range(2):
        response = scribe.http.post("/v1/chat/completions", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, "messages"), response.text
        assert "chat template" in error["message"]
    chat(scribe, SAID, max_tokens=1)


def test_without_a_template_there_is_no_chat(writer: Server, chain: Server) -> None:
    for server, lacks in ((writer, "chat template"), (chain, "tokenizer")):
        response = server.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "a"}]})
        assert response.status_code == 400
        assert lacks in response.json()["error"]["message"]


WRONG: dict[str, list[Any]] = {
    "messages": [
        [],
        "a",
        [{"role": "user"}],
        [{"role": "tool", "content": "a"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}],
        [{"role": "user", "content": "a", "more": 1}],
        [{"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]}],
    ],
    "max_tokens": [0, -1, "1"],
    "max_completion_tokens": [0, 1.5],
    "logprobs": [1, "true"],
    "top_logprobs": [-1, 21, True],
    "tools": [[{"type": "function"}]],
    "tool_choice": ["auto", "required"],
    "response_format": [{"type": "json_object"}],
    "reasoning_effort": ["high"],
    "modalities": [["audio"]],
    "store": [True],
    "prompt": ["a"],
    "frequency_penalty": [1],
    "best_of": [1],
}


@pytest.mark.parametrize(("field", "values"), WRONG.items(), ids=WRONG)
def test_bad_values_are_400_and_name_the_field(scribe: Server, field: str, values: list[Any]) -> None:
    for value in values:
        body = {"messages": [{"role": "user", "content": SAID}], field: value}
        response = scribe.http.post("/v1/chat/completions", json=body)
        error = response.json()["error"]
        assert response.status_code == 400, (value, response.text)
        assert error["param"].partition(".")[0] == field, (value, error)


def test_two_limits_are_one_too_many(scribe: Server) -> None:
    body = {"messages": [{"role": "user", "content": SAID}], "max_tokens": 2, "max_completion_tokens": 3}
    response = scribe.http.post("/v1/chat/completions", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "max_tokens")
