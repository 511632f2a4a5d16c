"""What a model says about itself, over HTTP and in the terminal: card, recommended settings, warnings."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import byte_tokenizer
from tests.helpers_command_line import Run
from tests.helpers_server import Body, Server, token_ids

GENERATION = {"temperature": 0.0, "top_p": 0.9, "sampler": {"steps": 6}}
KNOWN = " the"
TOKENIZER = byte_tokenizer()
TRAINED = TOKENIZER.encode(KNOWN).ids
UNKNOWN = "xyz"


@pytest.fixture(scope="module")
def folder(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle `writer` with a description."""
    copy = Path(shutil.copytree(bundles / "writer", tmp_path_factory.mktemp("described") / "described"))
    config = json.loads((copy / "config.json").read_text())
    config |= {"description": "It writes noise.", "examples": [KNOWN, "two\nlines"], "generation": GENERATION}
    config |= {"trained_tokens": ",".join(map(str, sorted(TRAINED)))}
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.fixture(scope="module")
def described(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        yield server.until_ready()


# --- over HTTP -------------------------------------------------------------------------------------------------------


def test_the_list_of_models_says_what_a_model_is(described: Server, writer: Server) -> None:
    (model,) = described.http.get("/v1/models").json()["data"]
    assert model["description"] == "It writes noise."
    assert model["examples"] == [KNOWN, "two\nlines"]
    assert model["generation"] == GENERATION
    (model,) = writer.http.get("/v1/models").json()["data"]
    assert (model["description"], model["examples"], model["generation"]) == (None, [], None)


def test_the_model_card_is_markdown(described: Server) -> None:
    answer = described.http.get("/v1/models/described/card")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert answer.text == "# A random network\n"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-request-id"]


def test_other_cards_do_not_exist(described: Server, table: Server) -> None:
    for server, path, code in (
        (described, "/v1/models/writer/card", "model_not_found"),
        (described, "/v1/models/%2e%2e/card", "model_not_found"),
        (described, f"/v1/models/{'x' * 5000}/card", "model_not_found"),
        (table, "/v1/models/table/card", "card_not_found"),
    ):
        answer = server.http.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == code
        assert len(answer.text) < 1000


def test_the_api_never_applies_recommended_settings_by_itself(described: Server, writer: Server) -> None:
    for body in ({"max_tokens": 8, "seed": 3}, {"max_tokens": 8, "seed": 4, "temperature": 0.5}):
        answers = [server.generate(**body) for server in (described, writer)]
        assert len({str(token_ids(answer)) for answer in answers}) == 1
        assert {answer["sampling"]["steps"] for answer in answers} == {None}


def warnings_of(server: Server, **body: object) -> list[str]:
    """The warnings of an answer; the same in `done`, and in the status once the generation has finished."""
    answer: Body = server.generate(max_tokens=2, seed=1, **body) if "canvas" not in body else server.generate(**body)
    with_tokens = {} if "canvas" in body else {"max_tokens": 2, "seed": 1}
    with server.http.stream("POST", "/generate", json={**with_tokens, **body, "stream": True}) as response:
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    done = json.loads(lines[-1].removeprefix("data: "))
    queued = server.http.post("/generate", json={**with_tokens, **body, "detach": True}).json()
    path = f"/generate/{queued['id']}"
    server.http.get(f"{path}/events")
    status = server.http.get(path).json()
    assert status["state"] == "finished"
    assert done.get("warnings") == status.get("warnings") == answer.get("warnings")
    assert answer.get("warnings") != []
    warnings: list[str] = answer.get("warnings", [])
    return warnings


def test_answers_warn_of_tokens_that_training_has_not_met(described: Server) -> None:
    (warning,) = warnings_of(described, prompt=UNKNOWN + KNOWN)
    assert warning == "3 of 4 prompt tokens are outside what this model was trained on"
    assert warnings_of(described, prompt=UNKNOWN, suffix=KNOWN + UNKNOWN) == [
        "3 of 3 prompt tokens are outside what this model was trained on",
        "3 of 4 suffix tokens are outside what this model was trained on",
    ]
    unknown = TOKENIZER.encode(UNKNOWN).ids
    (warning,) = warnings_of(described, canvas=[*unknown, None, *TRAINED])
    assert warning == "3 of 4 canvas tokens are outside what this model was trained on"


def test_other_answers_have_no_warnings(described: Server, writer: Server) -> None:
    assert not warnings_of(described, prompt=KNOWN * 3)
    assert not warnings_of(described)
    assert not warnings_of(writer, prompt=UNKNOWN)


def test_the_description_of_the_api_knows_it_all(described: Server) -> None:
    document = described.http.get("/openapi.json").json()
    assert "/v1/models/{model_id}/card" in document["paths"]
    schemas = document["components"]["schemas"]
    assert "a quarter" in schemas["GenerateAnswer"]["properties"]["warnings"]["description"]
    assert "warnings" not in schemas["GenerateAnswer"].get("required", [])
    assert "never applies" in schemas["ModelCard"]["properties"]["generation"]["description"]
    for model, name in (("UnmaskEvent", "tokens"), ("StartEvent", "canvas")):
        assert "U+FFFD" in schemas[model]["properties"][name]["description"]


# --- in the terminal -------------------------------------------------------------------------------------------------


def generated(run: Run, folder: Path, *options: str) -> tuple[list[int], str]:
    """The tokens of `unmask generate`, and what it printed on stderr."""
    fixed = ("--max-tokens", "8", "--seed", "3", "--threads", "1", "--json")
    ended = run("generate", "--model", folder, *fixed, *options)
    assert ended.code == 0, ended.stderr
    tokens: list[int] = json.loads(ended.stdout)["token_ids"]
    return tokens, ended.stderr


def test_generate_uses_the_recommended_settings_and_says_so(run: Run, folder: Path, bundles: Path) -> None:
    tokens, stderr = generated(run, folder)
    assert stderr == (
        "settings: temperature 0.0, top_p 0.9, steps 6 (recommended by described; the API's defaults: --exact)\n"
    )
    written_out = ("--temperature", "0", "--top-p", "0.9", "--steps", "6")
    assert generated(run, bundles / "writer", *written_out) == (tokens, "")


def test_exact_is_what_the_api_does(run: Run, folder: Path, bundles: Path, described: Server) -> None:
    exact = generated(run, folder, "--exact")
    assert exact == generated(run, bundles / "writer")
    assert exact[1] == ""
    assert token_ids(described.generate(max_tokens=8, seed=3)) == [exact[0]]
    warm = generated(run, folder, "--exact", "--temperature", "0.5")
    assert warm == generated(run, bundles / "writer", "--temperature", "0.5")


def test_options_win(run: Run, folder: Path, bundles: Path) -> None:
    tokens, stderr = generated(run, folder, "--temperature", "2", "--steps", "3")
    assert stderr.startswith("settings: temperature 2.0, top_p 0.9, steps 3 (")
    same = ("--temperature", "2", "--top-p", "0.9", "--steps", "3")
    assert generated(run, bundles / "writer", *same)[0] == tokens
    # a sampler's name replaces the recommended sampler with all its fields
    tokens, stderr = generated(run, folder, "--temperature", "1", "--top-p", "1", "--sampler", "first_hitting")
    assert stderr.startswith("settings: temperature 1.0, top_p 1.0, sampler first_hitting (")
    assert generated(run, folder, "--exact")[0] == tokens


def test_the_terminal_warns(run: Run, folder: Path) -> None:
    ended = run("generate", UNKNOWN, "--model", folder, "--max-tokens", "2", "--seed", "3", "--exact", "--n", "65")
    assert ended.code == 0
    assert ended.stderr == "warning: 3 of 3 prompt tokens are outside what this model was trained on\n"
    ended = run("generate", KNOWN, "--model", folder, "--max-tokens", "2", "--seed", "3", "--exact")
    assert ended.stderr == ""


def test_info_says_what_the_model_is(run: Run, folder: Path, bundles: Path) -> None:
    facts = json.loads(run("info", folder, "--json").stdout)
    assert facts["description"] == "It writes noise."
    assert facts["examples"] == [KNOWN, "two\nlines"]
    assert facts["generation"] == GENERATION
    table = run("info", folder).stdout
    for shown in ("It writes noise.", KNOWN.strip(), "lines", '"temperature": 0.0', "recommended"):
        assert shown in table
    assert "recommended" not in run("info", bundles / "writer").stdout


def test_a_wrong_recommendation_is_one_line(run: Run, folder: Path, tmp_path: Path) -> None:
    wrong = Path(shutil.copytree(folder, tmp_path / "wrong"))
    config = json.loads((wrong / "config.json").read_text()) | {"generation": {"temprature": 0.7}}
    (wrong / "config.json").write_text(json.dumps(config))
    for command in (("generate", "--model"), ("info",)):
        ended = run(*command, wrong)
        assert ended.code == 2
        assert "generation.temprature" in ended.stderr
        assert ended.stderr.count("\n") == 1
