"""`unmask score`: what it prints is what the core computes and what the server answers."""

import io
import json
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text
from tokenizers import Tokenizer
from unmask_diffusion import Estimate, Score, ScorePlan, ScoreRequest, TokenNats, score
from unmask_model_store import Bundle, open_bundle
from unmask_service.api.score_schemas import ScoreAnswer
from unmask_service.cli.score import GIVEN, LEVELS, estimate_text, heat_map, legend, rows_of, style_of
from unmask_service.cli.score import score as command

from tests.helpers import END_TOKEN, ToyModel, byte_tokenizer, prime_model
from tests.helpers_command_line import Ended, Run
from tests.helpers_scoring import score_plan
from tests.helpers_server import Server

TEXT = " the cat, the café"
# only a server has these
SERVERS = {"id", "created", "timings", "fingerprint"}


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """A text of more tokens than the writer's window has, with a line break at its end."""
    file = tmp_path / "text.txt"
    file.write_text(TEXT * 2 + "\n", encoding="utf-8")
    return file


@pytest.fixture
def writer_bundle(bundles: Path) -> Bundle:
    """As the command opens it unless told otherwise."""
    return open_bundle(bundles / "writer", "auto", "auto")


def answered(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.stderr
    assert ended.stdout.endswith("}\n")
    assert ended.stderr == ""
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


def refused_in_one_line(ended: Ended, *needles: str) -> None:
    assert ended.code == 2, ended.stderr
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    missing = [needle for needle in needles if needle not in ended.stderr]
    assert not missing, f"{missing} not in {ended.stderr!r}"


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


# --- what it prints --------------------------------------------------------------------------------------------------


def test_every_field_of_a_request_has_an_option() -> None:
    assert ScoreRequest.model_fields.keys() - {"input"} <= signature(command).parameters.keys()


def test_json_is_the_servers_answer(run: Run, bundles: Path, writer: Server, text_file: Path) -> None:
    options = ["--published-integrand", "--per-token", "--seed", "7", "--prompt", "a", "--budget", "500"]
    answer = answered(run("score", text_file, *options, "--json", "--model", bundles / "writer"))
    fields = {"input": TEXT * 2, "seed": 7, "prompt": "a", "budget": 500}
    body = fields | {"published_integrand": True, "per_token": True}
    served = writer.http.post("/score", json=body).json()
    assert answer == {name: value for name, value in served.items() if name not in SERVERS}
    # of pictures, and of one order
    assert answer.keys() == ScoreAnswer.model_fields.keys() - SERVERS - {"bits_per_dimension", "token_likeliest"}


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ([], {}),
        (["--prompt", "once", "--suffix", "end"], {"prompt": "once", "suffix": "end"}),
        (["--given", "0,3"], {"given": [0, 3]}),
        (["--estimator", "integral", "--budget", "40"], {"estimator": "integral", "budget": 40}),
        (["--standard-error-per-token", "0.3", "--overlap", "20"], {"standard_error_per_token": 0.3, "overlap": 20}),
    ],
)
def test_options_are_the_requests_fields(
    run: Run, bundles: Path, writer_bundle: Bundle, text_file: Path, options: list[str], fields: dict[str, Any]
) -> None:
    answer = answered(run("score", text_file, *options, "--seed", "3", "--json", "--model", bundles / "writer"))
    found = score(writer_bundle, input=TEXT * 2, seed=3, **fields)
    assert (answer["nats"], answer["standard_error"]) == (found.bound.nats, found.bound.standard_error)
    assert answer["estimator"]["network_evaluations"] == found.network_evaluations
    assert (answer["tokens"], answer["words"], answer["bytes"]) == (found.tokens, found.words, found.bytes)


def test_standard_input_and_line_breaks(
    run: Run, bundles: Path, monkeypatch: pytest.MonkeyPatch, writer_bundle: Bundle
) -> None:
    """One line break at the end is the file's; all others are text."""
    for data, text in ((b"a b", "a b"), (b"a b\n", "a b"), (b"a b\r\n", "a b"), (b"\na\r\nb\n\n", "\na\r\nb\n")):
        feed(monkeypatch, data)
        answer = answered(run("score", "-", "--seed", "1", "--json", "--model", bundles / "writer"))
        assert answer["nats"] == score(writer_bundle, input=text, seed=1).bound.nats


def test_ids(run: Run, bundles: Path, tmp_path: Path) -> None:
    file = tmp_path / "ids.json"
    file.write_text("[1, 3]\n")
    answer = answered(run("score", file, "--ids", "--seed", "1", "--per-token", "--json", "--model", bundles / "table"))
    assert answer["nats"] == pytest.approx(score(open_bundle(bundles / "table"), input=[1, 3], seed=1).bound.nats)
    assert [row[:3] for row in answer["token_nats"]] == [[0, 1, None], [1, 3, None]]
    assert (answer["words"], answer["published_integrand"]) == (None, None)
    file.write_text("[3]")
    given = answered(run("score", file, "--ids", "--prompt", "[1]", "--json", "--model", bundles / "table"))
    assert given["nats"] < answer["nats"]


def test_a_table_for_people(run: Run, bundles: Path, text_file: Path, writer_bundle: Bundle) -> None:
    ended = run(
        "score", text_file, "--published-integrand", "--per-token", "--seed", "5", "--model", bundles / "writer"
    )
    assert (ended.code, ended.stderr) == (0, "")
    found = score(writer_bundle, input=TEXT * 2, seed=5, published_integrand=True)
    assert found.published is not None
    assert f"{estimate_text(found.bound)} nats" in ended.stdout
    assert f"{estimate_text(found.bound, found.tokens)} nats, {found.tokens} tokens" in ended.stdout
    assert f"{estimate_text(found.published)} nats" in ended.stdout
    for words in ("per token: no bound", "windows", "24 tokens, each sharing 12", "4 pairs of random orders", "seed  "):
        assert words in ended.stdout
    # without colours the text would tell nothing
    assert "--json tells the nats of each token" in ended.stdout
    assert "café" not in ended.stdout


def test_a_terminal_shows_progress_and_colours(
    run: Run, bundles: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    ended = run("score", text_file, "--per-token", "--seed", "5", "--model", bundles / "writer")
    assert ended.code == 0, ended.stderr
    assert "network evaluations" in ended.stderr
    assert "nats per token" in ended.stderr
    assert "below 0.5" in ended.stdout
    assert "\x1b[" in ended.stdout.split("4 and more")[1]


def test_a_long_score_in_a_pipe_says_how_far_it_is(
    run: Run, bundles: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(command.__globals__, "SECONDS_BETWEEN_LINES", 0.0)
    ended = run("score", text_file, "--seed", "5", "--json", "--model", bundles / "writer")
    assert json.loads(ended.stdout)
    done, left, estimate = ended.stderr.splitlines()[-1].split(", ", 2)
    assert done.endswith("network evaluations")
    assert left.startswith("at most ")
    assert estimate.endswith("nats per token")


# --- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "needles"),
    [
        (["--budget", "3"], ["budget is 3", "network evaluations"]),
        (["--budget", "0"], ["budget"]),
        (["--overlap", "24"], ["overlap is 24", "23"]),
        (["--given", "99"], ["given holds position 99"]),
        (["--given", "1;2"], ["given is '1;2'", "0,5,7"]),
        (["--estimator", "exact"], ["estimator", "integral"]),
        (["--standard-error-per-token", "0"], ["standard-error-per-token"]),
        (["--standard-error-per-token", "nan"], ["standard-error-per-token"]),
        (["--seed", "-1"], ["seed"]),
        (["--prompt", "\udcff"], ["prompt"]),
        (["--ids"], ["input is not a JSON list of token ids"]),
        (["--dtype", "float8"], ["dtype"]),
    ],
)
def test_what_cannot_be_scored(
    run: Run, bundles: Path, text_file: Path, options: list[str], needles: list[str]
) -> None:
    refused_in_one_line(run("score", text_file, *options, "--model", bundles / "writer"), *needles)


@pytest.mark.parametrize(
    ("data", "options", "needles"),
    [
        (b"", [], ["input has no tokens"]),
        (b"\n", [], ["input has no tokens"]),
        (b"ab\xff", [], ["input is not valid UTF-8: -, byte 2"]),
        (b"{}", ["--ids"], ["input is not a JSON list of token ids"]),
        (b"[1, true]", ["--ids"], ["input is not a JSON list of token ids"]),
        (b"[300]", ["--ids"], ["input holds token id 300", "259"]),
        (b"[-1]", ["--ids"], ["input.0: Input should be greater than or equal to 0"]),
        (b"[1]", ["--ids", "--suffix", "end"], ["suffix is not a JSON list of token ids"]),
    ],
)
def test_what_cannot_be_read(
    run: Run, bundles: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, options: list[str], needles: list[str]
) -> None:
    feed(monkeypatch, data)
    refused_in_one_line(run("score", "-", *options, "--model", bundles / "writer"), *needles)


def test_files_and_models_that_are_not_there(run: Run, bundles: Path, tmp_path: Path, text_file: Path) -> None:
    refused_in_one_line(run("score", tmp_path / "none.txt"), "none.txt", "No such file")
    refused_in_one_line(run("score", tmp_path), "directory")
    refused_in_one_line(run("score", text_file, "--model", "nonesuch"), "nonesuch")
    refused_in_one_line(run("score", text_file, "--model", bundles / "table"), "no tokenizer", "input")


def test_a_text_of_probability_zero(run: Run, bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, b"[3, 1]")
    refused_in_one_line(run("score", "-", "--ids", "--model", bundles / "table"), "the input", "probability zero")


# --- how it looks ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_tokenizer()


def model_of(tokenizer: Tokenizer | None) -> ToyModel:
    toy = prime_model(classes=260, digits=2, base=17)
    return ToyModel(toy.denoiser, toy.sub_tokenizer, tokenizer)


def with_nats(plan: ScorePlan, nats: list[float | None]) -> Score:
    """A score of a plan whose tokens cost so much each; None where a token is given."""
    first = len(plan.request.prompt)
    rows = [TokenNats(i, plan.tokens[first + i], each) for i, each in enumerate(nats) if each is not None]
    return Score(Estimate(9.0, 0.5), None, len(rows), 2, 9, 4, 80, tuple(rows))


def spans(text: Text) -> list[tuple[str, str]]:
    return [(text.plain[span.start : span.end], str(span.style)) for span in text.spans]


def test_tokens_of_one_level_share_a_colour(tokenizer: Tokenizer) -> None:
    model = model_of(tokenizer)
    plan = score_plan(model, prompt="x", input="abcd", given=[3])
    assert spans(heat_map(model, plan, with_nats(plan, [0.01, 0.3, 0.2, None]))) == [
        ("a", style_of(0.01)),
        ("bc", style_of(0.2)),
        ("d", GIVEN),
    ]


def test_a_character_of_several_tokens_has_the_nats_of_all(tokenizer: Tokenizer) -> None:
    """é is two tokens; where a text ends within a character, what there is of it is shown as such."""
    model = model_of(tokenizer)
    plan = score_plan(model, input="aéb")
    assert spans(heat_map(model, plan, with_nats(plan, [0.01, 0.3, 0.3, 0.01]))) == [
        ("a", style_of(0.01)),
        ("é", style_of(0.6)),
        ("b", style_of(0.01)),
    ]
    cut = score_plan(model, input=[*plan.tokens[:2]])
    assert heat_map(model, cut, with_nats(cut, [0.01, 5.0])).plain == "a\ufffd"
    half_given = score_plan(model, input="é", given=[0])
    assert spans(heat_map(model, half_given, with_nats(half_given, [None, 0.2])))[0] == ("\ufffd", GIVEN)


def test_the_end_token_is_shown_by_name(tokenizer: Tokenizer) -> None:
    model = model_of(tokenizer)
    plan = score_plan(model, input=f"a{END_TOKEN}")
    assert heat_map(model, plan, with_nats(plan, [0.01, 0.3])).plain == f"a{END_TOKEN}"


def test_without_a_tokenizer_ids_are_shown() -> None:
    model = model_of(None)
    plan = score_plan(model, input=[7, 12])
    assert heat_map(model, plan, with_nats(plan, [0.01, 0.3])).plain == "7 12 "


def test_the_legend_names_every_level() -> None:
    assert [style for _, style in spans(legend()) if style] == [style for _, style in LEVELS]
    assert "below 0.1" in legend().plain
    assert "4 and more" in legend().plain
    assert [style_of(nats) for nats in (0.0, 0.1, 3.9, 4.0, 1e9)] == [LEVELS[i][1] for i in (0, 1, 4, 5, 5)]


@pytest.mark.parametrize(
    ("nats", "error", "shown"),
    [
        (28.9127, 0.9251, "28.91 ± 0.93"),
        (4123.4, 12.3, "4123.4 ± 12.3"),
        (1.5, 0.00012, "1.50000 ± 0.00012"),
        (1.5, 1e-9, "1.500000 ± 0.000000"),
        (2.25, 0.0, "2.2500 ± 0.0000"),
    ],
)
def test_an_estimate_shows_two_digits_of_its_error(nats: float, error: float, shown: str) -> None:
    assert estimate_text(Estimate(nats, error)) == shown


def test_rows_without_words_or_a_perplexity() -> None:
    plan = score_plan(model_of(None), input=[7, 12], seed=1, estimator="integral")
    hopeless = Score(Estimate(5000.0, 1.0), None, 2, None, None, 8, 32, ())
    rows = dict(rows_of(plan, hopeless))
    assert rows["perplexity"] == "beyond a double per token"
    assert "bits a byte" not in rows
    assert rows["windows"] == "1 of 2 tokens"
    assert rows["averaged over"] == "8 passes over the mask rates, 32 network evaluations"


def test_a_standard_error_that_is_not_reached_is_said(run: Run, bundles: Path, text_file: Path) -> None:
    options = ("--seed", "1", "--budget", "1000", "--model", bundles / "writer")
    missed = run("score", text_file, "--standard-error-per-token", "0.0001", *options)
    assert "not reached" in missed.stdout
    assert "0.0001 per token: --budget is spent" in missed.stdout
    assert "not reached" not in run("score", text_file, *options).stdout
