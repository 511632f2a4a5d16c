"""`POST /v1/completions`: what OpenAI's clients send, and what they read."""

import http.client
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.helpers import SCRIBES_TEXT, byte_tokenizer
from tests.helpers_server import Body, Server, wait_for

Chunks = list[dict[str, Any]]
TOKENIZER = byte_tokenizer()
STOP = "-st"


def complete(server: Server, **body: Any) -> Body:  # noqa: ANN401 — JSON
    response = server.http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    answer: Body = response.json()
    return answer


def texts(answer: Body) -> list[str]:
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(answer["choices"])))
    return [choice["text"] for choice in answer["choices"]]


def chunks_of(server: Server, path: str = "/v1/completions", **body: Any) -> Chunks:  # noqa: ANN401 — JSON
    """The chunks of a stream, read as sglang's benchmark does: every line that is not empty is data."""
    with server.http.stream("POST", path, json=body | {"stream": True}) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
        content = b"".join(response.iter_raw())
    assert b"\r" not in content
    lines = [line for line in content.decode().splitlines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert content.count(b"\n\n") == len(lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def joined(chunks: Chunks) -> list[str]:
    """The text of each choice. Its last chunk, and no other, says why it ends."""
    pieces: dict[int, list[str]] = defaultdict(list)
    ended: set[int] = set()
    for chunk in chunks:
        for choice in chunk["choices"]:
            assert choice["index"] not in ended
            pieces[choice["index"]].append(choice["text"])
            if choice["finish_reason"] is not None:
                ended.add(choice["index"])
    assert ended == set(pieces)
    return ["".join(pieces[index]) for index in sorted(pieces)]


# --- the answer ------------------------------------------------------------------------------------------------------


def test_an_answer_has_the_fields_of_openai_and_the_text_of_generate(writer: Server) -> None:
    answer = complete(writer, model="writer", prompt=" the", max_tokens=5, seed=7)
    assert set(answer) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert answer["id"].startswith("cmpl-")
    assert (answer["object"], answer["model"]) == ("text_completion", "writer")
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6}
    (choice,) = answer["choices"]
    assert set(choice) == {"index", "text", "logprobs", "finish_reason"}
    native = writer.generate(prompt=" the", max_tokens=5, seed=7)
    assert choice["text"] == native["choices"][0]["text"]
    assert answer["system_fingerprint"] == native["fingerprint"]


def test_null_is_as_if_a_field_was_left_out(writer: Server) -> None:
    fields = (
        "model suffix max_tokens n temperature top_p top_k min_p stop stream stream_options logprobs echo ignore_eos "
    )
    fields += "logit_bias user metadata best_of frequency_penalty presence_penalty repetition_penalty response_format "
    fields += "canvas sampler deadline_ms candidates diffusing"
    answer = complete(writer, prompt="a", seed=3, **dict.fromkeys(fields.split()))
    assert texts(answer) == texts(complete(writer, prompt="a", seed=3))
    assert answer["usage"]["completion_tokens"] == 16, "OpenAI's default"


def test_neutral_values_are_accepted(writer: Server) -> None:
    neutral: Body = {
        "best_of": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "response_format": {"type": "text"},
        "temperature": 1,
        "top_p": 1,
        "top_k": -1,
        "min_p": 0,
        "stop": [],
        "user": "somebody",
        "metadata": {"any": "thing"},
        "stream_options": {"include_usage": True, "continuous_usage_stats": None},
    }
    plain = complete(writer, prompt="a", max_tokens=4, seed=3)
    assert texts(complete(writer, prompt="a", max_tokens=4, seed=3, **neutral)) == texts(plain)
    assert texts(complete(writer, prompt="a", max_tokens=4, seed=3, stop="", top_k=0)) == texts(plain)


def test_the_forms_of_a_prompt(writer: Server) -> None:
    ids: list[int] = TOKENIZER.encode(" the").ids
    one = complete(writer, prompt=" the", max_tokens=4, seed=3)
    prompts: list[Any] = [ids, [" the"], [ids]]
    for prompt in prompts:
        assert texts(complete(writer, prompt=prompt, max_tokens=4, seed=3)) == texts(one)
    nothing = complete(writer, max_tokens=4, seed=3)
    nothings: list[Any] = ["", [], [""], [[]], None]
    for empty in nothings:
        assert texts(complete(writer, prompt=empty, max_tokens=4, seed=3)) == texts(nothing)
    assert complete(writer, prompt=[" the", "ab"], max_tokens=4)["usage"]["prompt_tokens"] == 3


def test_prompts_do_not_depend_on_their_neighbours(writer: Server) -> None:
    alone = texts(complete(writer, prompt="a", n=2, max_tokens=4, seed=3))
    first = texts(complete(writer, prompt=["a", "a", "b"], n=2, max_tokens=4, seed=3))
    other = texts(complete(writer, prompt=["c", "a", "d"], n=2, max_tokens=4, seed=3))
    assert first[:2] == alone
    assert first[2:4] == other[2:4] != alone, "a seed of its own"


def test_min_p_of_one_leaves_the_likeliest(writer: Server) -> None:
    """In both interfaces, for every order and with drafts."""
    for sampler in ({"name": "first_hitting"}, {"name": "entropy", "block_length": 2}, {"steps": 3}):
        body: Body = {"prompt": "a", "max_tokens": 5, "seed": 3, "sampler": sampler}
        greedy = texts(complete(writer, **body, top_k=1))
        assert texts(complete(writer, **body, min_p=1)) == greedy
        assert [choice["text"] for choice in writer.generate(**body, min_p=1.0)["choices"]] == greedy
    refused = writer.http.post("/generate", json={"min_p": 1.5})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "min_p")


def test_a_suffix_leaves_a_real_gap(writer: Server) -> None:
    answer = complete(writer, prompt="a", suffix=" the", max_tokens=4, seed=3)
    native = writer.generate(prompt="a", suffix=" the", max_tokens=4, seed=3)
    assert texts(answer) == [native["choices"][0]["text"]]
    assert answer["usage"]["prompt_tokens"] == 2


def test_our_own_fields(writer: Server) -> None:
    fields: Body = {"canvas": [5, None, None, 9], "sampler": {"name": "ancestral", "steps": 4}, "seed": 3}
    assert texts(complete(writer, **fields)) == [writer.generate(**fields)["choices"][0]["text"]]


def test_echo(writer: Server) -> None:
    plain = texts(complete(writer, prompt=["a", "☃"], max_tokens=4, seed=3))
    assert texts(complete(writer, prompt=["a", "☃"], max_tokens=4, seed=3, echo=True)) == [
        "a" + plain[0],
        "☃" + plain[1],
    ]
    nothing = complete(writer, prompt=TOKENIZER.encode("ab").ids, max_tokens=0, echo=True)
    assert texts(nothing) == ["ab"]
    assert nothing["usage"] == {"prompt_tokens": 2, "completion_tokens": 0, "total_tokens": 2}


def test_the_end_token_stops_unless_it_is_ignored(scribe: Server) -> None:
    (choice,) = complete(scribe, max_tokens=32)["choices"]
    assert (choice["text"], choice["finish_reason"]) == (SCRIBES_TEXT, "stop")
    whole = complete(scribe, max_tokens=32, ignore_eos=True)
    (choice,) = whole["choices"]
    assert choice["text"].startswith(SCRIBES_TEXT + "<|end|>")
    assert (choice["finish_reason"], whole["usage"]["completion_tokens"]) == ("length", 32)


# --- stop strings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [STOP, [STOP], ["nowhere", "top", STOP, "xyz"], ["\U0001f643", "-sto"]])
def test_a_stop_string_cuts_across_the_borders_of_tokens(scribe: Server, stop: str | list[str]) -> None:
    before = SCRIBES_TEXT[: SCRIBES_TEXT.index(STOP)]
    answer = complete(scribe, max_tokens=32, stop=stop, seed=1)
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == (before, "stop")
    assert answer["usage"]["completion_tokens"] == len(before.encode())
    (native,) = scribe.generate(max_tokens=32, stop=stop, seed=1)["choices"]
    assert (native["text"], native["finish_reason"]) == (before, "stop")
    assert TOKENIZER.decode(native["token_ids"]) == before


def test_a_stop_string_of_one_character_with_several_bytes(scribe: Server) -> None:
    assert texts(complete(scribe, max_tokens=32, stop=["🙂"])) == ["Ab"]
    assert texts(complete(scribe, max_tokens=32, stop=["\u2028"])) == ["Ab🙂cn\u0303"]
    assert joined(chunks_of(scribe, max_tokens=32, stop=["\u2028"])) == ["Ab🙂cn\u0303"]


def test_a_stop_string_begins_behind_the_prompt(scribe: Server) -> None:
    """Only what is generated is cut: neither the prompt nor its end together with the text's beginning."""
    prompt, rest = SCRIBES_TEXT[:3], SCRIBES_TEXT[3:]
    stop = ["b", prompt[-1] + rest[0]]
    assert texts(complete(scribe, prompt=prompt, max_tokens=26, stop=stop)) == [rest]
    assert joined(chunks_of(scribe, prompt=prompt, max_tokens=26, stop=stop, echo=True)) == [prompt + rest]


def test_a_stop_string_saves_evaluations_from_left_to_right(scribe: Server) -> None:
    blocks: Body = {"max_tokens": 32, "sampler": {"block_length": 1}, "seed": 1, "n": 2, "ignore_eos": True}
    whole, cut = scribe.generate(**blocks), scribe.generate(**blocks, stop=[STOP])
    needed = SCRIBES_TEXT[: SCRIBES_TEXT.index(STOP) + len(STOP)].encode()
    assert cut["sampling"]["network_evaluations"] == 2 * 2 * len(needed)
    assert whole["sampling"]["network_evaluations"] == 2 * 2 * 32
    assert cut["sampling"]["evaluations_saved"] == 2 * 2 * (32 - len(needed))
    assert texts(cut) == [SCRIBES_TEXT[: SCRIBES_TEXT.index(STOP)]] * 2


def test_a_possible_beginning_of_a_stop_string_is_held_back(scribe: Server) -> None:
    """From left to right every token is a piece of its own, so nothing that is cut may have been sent."""
    left_to_right: Body = {"max_tokens": 32, "sampler": {"block_length": 1}}
    assert joined(chunks_of(scribe, **left_to_right, stop=[STOP])) == [SCRIBES_TEXT[: SCRIBES_TEXT.index(STOP)]]
    chunks = chunks_of(scribe, **left_to_right, stop=["-stoop", "e-stoo"])
    pieces = [choice["text"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(pieces) == SCRIBES_TEXT
    assert "e-stop" in pieces, "sent once it is certain"


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_gives_the_text_of_the_answer(writer: Server) -> None:
    body: Body = {"prompt": ["a", " the"], "n": 3, "max_tokens": 8, "seed": 5}
    whole = complete(writer, **body)
    chunks = chunks_of(writer, **body)
    assert joined(chunks) == texts(whole)
    heads = {(c["id"], c["object"], c["created"], c["model"]) for c in chunks}
    assert len(heads) == 1
    assert all("usage" not in chunk for chunk in chunks)
    reasons = {c["index"]: c["finish_reason"] for each in chunks for c in each["choices"] if c["finish_reason"]}
    assert reasons == {choice["index"]: choice["finish_reason"] for choice in whole["choices"]}


def test_usage_comes_in_a_chunk_without_choices(writer: Server) -> None:
    body: Body = {"prompt": "a", "n": 2, "max_tokens": 6, "seed": 5}
    whole = complete(writer, **body)
    *chunks, last = chunks_of(writer, **body, stream_options={"include_usage": True})
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert all(chunk["usage"] is None for chunk in chunks)
    chunks = chunks_of(writer, **body, stream_options={"continuous_usage_stats": True})
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert chunks[-1]["usage"] == whole["usage"]


@pytest.mark.parametrize("block_length", [None, 1])
def test_characters_are_whole_and_lines_are_not_broken(scribe: Server, block_length: int | None) -> None:
    body: Body = {"max_tokens": 32, "n": 4, "sampler": {"block_length": block_length}, "stream": True, "seed": 2}
    with scribe.http.stream("POST", "/v1/completions", json=body) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    chunks = [json.loads(line) for line in lines[:-1]]
    assert joined(chunks) == [SCRIBES_TEXT] * 4
    pieces = [choice["text"] for chunk in chunks for choice in chunk["choices"]]
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    if block_length:
        assert "🙂" in pieces


def test_64_samples_in_a_stream(scribe: Server) -> None:
    assert joined(chunks_of(scribe, max_tokens=30, n=64, sampler={"steps": 8})) == [SCRIBES_TEXT] * 64


def test_frames_of_generate_are_not_broken_either(scribe: Server) -> None:
    with scribe.http.stream("POST", "/generate", json={"max_tokens": 30, "stream": True}) as response:
        content = b"".join(response.iter_raw()).decode()
    assert not set(content) & set("\x85\u2028\u2029\r")
    assert json.dumps(SCRIBES_TEXT, ensure_ascii=False)[1:-1].translate({0x85: "\\u0085", 0x2028: "\\u2028"}) in content


def test_diffusing_shows_the_whole_text_at_every_step(scribe: Server) -> None:
    chunks = chunks_of(scribe, max_tokens=30, diffusing=True, seed=3)
    shown = [choice["diffusion_content"] for chunk in chunks for choice in chunk["choices"]]
    assert shown == [choice["text"] for chunk in chunks for choice in chunk["choices"]]
    assert all(chunk["diffusion_meta"] == {"diffusion_content": True} for chunk in chunks)
    assert shown[0] == 30 * "░"
    masked = [text.count("░") for text in shown]
    assert masked == sorted(masked, reverse=True)
    assert shown[-1] == SCRIBES_TEXT
    assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"]][-1] == "stop"


def test_diffusing_shows_an_echo_before_the_canvas(writer: Server) -> None:
    body: Body = {"prompt": " the", "max_tokens": 6, "echo": True, "seed": 5}
    (whole,) = complete(writer, **body)["choices"]
    texts = [choice["text"] for chunk in chunks_of(writer, **body, diffusing=True) for choice in chunk["choices"]]
    assert texts[0] == " the" + 6 * "\N{LIGHT SHADE}"
    assert texts[-1] == whole["text"]


def test_candidates_are_in_the_chunks(writer: Server) -> None:
    chunks = chunks_of(writer, max_tokens=6, seed=5, candidates=2)
    told = [each for chunk in chunks for choice in chunk["choices"] for each in choice.get("candidates", [])]
    stream = writer.stream(max_tokens=6, seed=5, candidates=2)
    expected = [each for unmask in stream.unmasks for each in unmask["candidates"]]
    assert told
    assert told == expected[: len(told)]


def test_a_failure_after_the_start_is_a_frame(scribe: Server) -> None:
    """The second prompt has probability zero; the first goes with it."""
    *_, last = chunks_of(scribe, prompt=["A", "zA"], max_tokens=4)
    assert last["error"]["code"] == "impossible"
    refused = scribe.http.post("/v1/completions", json={"prompt": ["A", "zA"], "max_tokens": 4})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "impossible")
    scribe.until_idle()


# --- a call with several prompts -------------------------------------------------------------------------------------


def test_a_client_that_leaves_in_the_middle_of_a_list_of_prompts(long_chain: Server) -> None:
    body: Body = {"prompt": [[1], [2], [3]], "max_tokens": 1000, "stream": True}
    gauges = ("unmask_requests_running", "unmask_requests_waiting")
    with long_chain.http.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200
        wait_for(lambda: sum(long_chain.metrics(*gauges)) == 3, 60)
    long_chain.until_idle()


def test_a_call_is_one_generation_of_its_idempotency_key(writer: Server) -> None:
    body: Body = {"prompt": ["a", "b"], "max_tokens": 4}
    headers = {"Idempotency-Key": "call-1"}
    first, again = (writer.http.post("/v1/completions", json=body, headers=headers).json() for _ in range(2))
    assert first == again
    other = writer.http.post("/v1/completions", json=body | {"n": 2}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency_key_reused")


def test_jobs_of_a_call_are_counted_by_endpoint(writer: Server) -> None:
    complete(writer, prompt=["a", "b"], max_tokens=2)
    name = 'unmask_requests_total{{endpoint="{}",model="writer",outcome="{}",reason="{}"}}'
    finished = name.format("/v1/completions", "finished", "")
    before = writer.metric(finished)
    complete(writer, prompt=["a", "b"], max_tokens=2)
    assert writer.metric(finished) == before + 2
    assert writer.http.post("/v1/completions", json={"n": 0}).status_code == 400
    assert writer.metric(name.format("/v1/completions", "rejected", "invalid_value")) >= 1


def test_a_model_without_a_tokenizer_gives_no_text(chain: Server) -> None:
    (choice,) = complete(chain, prompt=[1], max_tokens=3)["choices"]
    assert choice["text"] is None
    refused = chain.http.post("/v1/completions", json={"prompt": [1], "stop": "a"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "stop")


# --- bad input -------------------------------------------------------------------------------------------------------

WRONG: dict[str, list[Any]] = {
    "prompt": [7, True, [1, "a"], ["a", 1], [["a"]], ["a"] * 129, [-1], {"a": 1}],
    "suffix": [7, ["a"]],
    "max_tokens": [0, -1, 1.5, "4", True, 10**6],
    "n": [0, 65, 1.5, "1", True],
    "temperature": [-1, "1", True, 101],
    "top_p": [0, 1.5, "1"],
    "top_k": [-2, 1.5, "1"],
    "seed": [-1, 2**63, 1.5, "1", True],
    "stop": [7, [""], ["a"] * 17, [7], {"a": 1}],
    "stream": [1, "true"],
    "stream_options": [True, {"include_usage": 1}, {"other": True}],
    "logprobs": [True, -1, 6, 1.0, "1"],
    "echo": [1, "true"],
    "ignore_eos": [1],
    "best_of": [2, 0, True],
    "frequency_penalty": [0.1, -1, "0"],
    "presence_penalty": [0.1, -1],
    "repetition_penalty": [1.1, 0],
    "response_format": [{"type": "json_object"}, {"type": "text", "more": 1}, {}, "text"],
    "diffusing": [1, True],
    "sampler": [{"name": "other"}, "first_hitting"],
    "deadline_ms": [0, "1"],
    "candidates": [17, -1, 1],
    "min_p": [-0.1, 1.5, "0"],
    "tools": [[], None],
    "prompt_logprobs": [1],
    "anything": [None, 0],
}


@pytest.mark.parametrize(("field", "values"), WRONG.items(), ids=WRONG)
def test_bad_values_are_400_and_name_the_field(writer: Server, field: str, values: list[Any]) -> None:
    for value in values:
        response = writer.http.post("/v1/completions", json={"seed": 1, field: value})
        error = response.json()["error"]
        assert (response.status_code, error["type"]) == (400, "invalid_request_error"), (value, response.text)
        assert error["param"].partition(".")[0] == field, (value, error)
        assert field in error["message"], (value, error)


def test_combinations_that_mean_nothing(writer: Server) -> None:
    for body, param in (
        ({"canvas": [5, None], "prompt": "a"}, "canvas"),
        ({"canvas": [5, None], "echo": True}, "echo"),
        ({"prompt": "", "max_tokens": 0, "echo": True}, "prompt"),
        ({"prompt": "a", "max_tokens": 24}, "max_tokens"),
    ):
        response = writer.http.post("/v1/completions", json=body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param), response.text


def test_other_errors(writer: Server) -> None:
    unknown = writer.http.post("/v1/completions", json={"model": "gpt-4"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    broken = writer.http.post("/v1/completions", content=b"{", headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_json")
    connection = http.client.HTTPConnection("127.0.0.1", writer.port)
    headers = {"Authorization": "Bearer ", "Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", b'{"max_tokens": 1}', headers)
    assert connection.getresponse().status == 200, "an empty key where none is needed"
    connection.close()


def test_a_cancelled_job_is_not_to_be_tried_again(long_chain: Server) -> None:
    body: Body = {"prompt": [[1], [2]], "max_tokens": 1000, "stream": True}
    with long_chain.http.stream("POST", "/v1/completions", json=body | {"candidates": 1}) as response:
        lines = response.iter_lines()
        first = json.loads(next(lines).removeprefix("data: "))
        assert long_chain.http.delete(f"/generate/{first['id']}-1").json()["state"] == "cancelled"
        *_, last, done = [line for line in lines if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "cancelled"
    assert done == "data: [DONE]"
    long_chain.until_idle()


# --- beside it -------------------------------------------------------------------------------------------------------


def test_the_card_has_a_root(writer: Server) -> None:
    (card,) = writer.http.get("/v1/models").json()["data"]
    assert (card["root"], card["parent"]) == ("writer", None)


def test_tokens_and_back(writer: Server) -> None:
    tokens = writer.http.post("/tokenize", json={"prompt": " the ☃", "add_special_tokens": False}).json()
    ids = TOKENIZER.encode(" the ☃").ids
    assert tokens == {"tokens": ids, "count": len(ids), "max_model_len": 24}
    assert writer.http.post("/detokenize", json={"tokens": ids}).json() == {"prompt": " the ☃"}
    info = writer.http.get("/tokenizer_info").json()
    assert info == {"eos_token": "<|end|>", "bos_token": None, "pad_token": None}
    for path, body in (("/tokenize", {"prompt": 7}), ("/tokenize", {}), ("/detokenize", {"tokens": [260]})):
        assert writer.http.post(path, json=body).status_code == 422
    assert writer.http.post("/tokenize", json={"prompt": "a", "model": "other"}).status_code == 404


def test_a_model_without_a_tokenizer_has_no_tokens_of_text(chain: Server) -> None:
    for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})):
        response = chain.http.post(path, json=body)
        assert response.status_code == 422
        assert "no tokenizer" in response.json()["error"]["message"]
    assert set(chain.http.get("/tokenizer_info").json().values()) == {None}


# --- log-probabilities -----------------------------------------------------------------------------------------------


def test_log_probabilities_are_those_of_generate(writer: Server) -> None:
    body: Body = {"prompt": " the", "max_tokens": 6, "n": 2, "seed": 5, "logprobs": 2}
    answer, native = complete(writer, **body), writer.generate(**body)
    for choice, expected in zip(answer["choices"], native["choices"], strict=True):
        found = choice["logprobs"]
        assert set(found) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
        for name in found:
            assert found[name] == expected["logprobs"][name]
        assert "".join(found["tokens"]) == choice["text"]
        assert sum(found["token_logprobs"]) == pytest.approx(expected["log_probability"])
    told: dict[int, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for chunk in chunks_of(writer, **body):
        for choice in chunk["choices"]:
            for name, values in choice["logprobs"].items():
                told[choice["index"]][name] += values
    assert [told[choice["index"]] for choice in answer["choices"]] == [c["logprobs"] for c in answer["choices"]]


def test_log_probabilities_in_a_stream_are_of_the_text_that_is_sent(scribe: Server) -> None:
    body: Body = {"max_tokens": 32, "sampler": {"block_length": 1}, "stop": [STOP], "logprobs": 1}
    (whole,) = complete(scribe, **body)["choices"]
    tokens: list[str] = []
    for chunk in chunks_of(scribe, **body):
        (choice,) = chunk["choices"]
        tokens += choice["logprobs"]["tokens"]
        assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert tokens == whole["logprobs"]["tokens"]
    assert whole["logprobs"]["token_logprobs"] == [0.0] * len(tokens)


def test_an_echo_has_the_log_probabilities_of_the_prompt_from_left_to_right(chain: Server, bundles: Path) -> None:
    """As lm-evaluation-harness asks: prompt + 1 numbers, the first null, sliced by the length of the context."""
    tensors = load_file(bundles / "chain" / "model.safetensors")
    prompts = [[1, 3, 0, 2, 2], [2, 1]]
    body: Body = {"prompt": prompts, "max_tokens": 1, "logprobs": 1, "temperature": 0, "seed": 1234, "echo": True}
    for prompt, choice in zip(prompts, complete(chain, **body)["choices"], strict=True):
        found = choice["logprobs"]
        assert {len(values) for values in found.values()} == {len(prompt) + 1}
        assert (found["token_logprobs"][0], found["top_logprobs"][0]) == (None, None)
        rows = tensors["log_transition"][prompt[:-1]]
        truth = [float(row[token]) for row, token in zip(rows, prompt[1:], strict=True)]
        assert found["token_logprobs"][1:-1] == pytest.approx(truth, abs=1e-5)
        for row, token, value, top in zip(
            rows, prompt[1:], found["token_logprobs"][1:-1], found["top_logprobs"][1:-1], strict=True
        ):
            assert (value == max(top.values())) == (int(row.argmax()) == token), "greedy, bit for bit"
    chunks = chunks_of(chain, **body)
    told: dict[int, list[str]] = defaultdict(list)
    for chunk in chunks:
        for choice in chunk["choices"]:
            told[choice["index"]] += choice["logprobs"]["tokens"]
    assert [len(tokens) for tokens in told.values()] == [6, 3]


def test_an_echo_alone(writer: Server) -> None:
    body: Body = {"prompt": "ab☃", "max_tokens": 0, "echo": True, "logprobs": 0}
    (choice,) = complete(writer, **body)["choices"]
    assert choice["text"] == "ab☃"
    assert "".join(choice["logprobs"]["tokens"]) == "ab☃"
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 2, 2]
    (score,) = [
        writer.http.post("/score", json={"input": "ab☃", "estimator": "left_to_right", "per_token": True}).json()
    ]
    expected = [-nats for _, _, _, nats in score["token_nats"]]
    assert choice["logprobs"]["token_logprobs"] == [None, *expected[1:]]
    assert joined(chunks_of(writer, **body)) == ["ab☃"]
