"""What can be asked of a score, what it comes to, and what cannot be: each refusal names its field and the limit."""

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from tokenizers import normalizers
from torch import Tensor
from unmask_diffusion import (
    RequestError,
    SamplingError,
    ScoreRequest,
    TableDenoiser,
    score,
)

from tests.conftest import possible_table
from tests.helpers import (
    END_TOKEN,
    DenoiserAround,
    ToyModel,
    byte_tokenizer,
    code_table,
    end_tokens,
    prime_model,
    table_model,
)
from tests.helpers_scoring import score_plan


@pytest.fixture(scope="module")
def model() -> ToyModel:
    """Without a tokenizer: ids 0 … 29, windows of 6 tokens."""
    return prime_model(length=6)


@pytest.fixture(scope="module")
def reader() -> ToyModel:
    """With a tokenizer that drops white space at the ends."""
    tokenizer = byte_tokenizer()
    tokenizer.normalizer = normalizers.Strip()
    classes = tokenizer.get_vocab_size()
    toy = prime_model(classes=classes, length=16, base=17)
    return ToyModel(toy.denoiser, toy.sub_tokenizer, tokenizer, end_tokens(tokenizer), full_canvas=False)


# --- what it comes to ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["orders", "integral"])
def test_one_token_is_enough(model: ToyModel, estimator: str) -> None:
    found = score(model, input=[17], seed=1, estimator=estimator)
    assert found.tokens == 1
    assert found.bound.nats > 0
    assert found.nats_per_token == found.bound.nats


def test_one_plain_token_is_read_in_one_evaluation() -> None:
    """One sub-token: every order is the same, and the standard error is 0."""
    model = prime_model(length=6, digits=1)
    for estimator in ("orders", "integral"):
        found = score(model, input=[17], estimator=estimator, budget=8)
        logits = model.denoiser.joint_logits(model.sub_tokenizer.masked(1)[None])[0, 0].double()
        assert found.bound.nats == pytest.approx(-float(logits.log_softmax(0)[17]), abs=1e-5)
        assert found.bound.standard_error == 0


def test_a_model_of_one_token() -> None:
    """Windows of one token: no context at all, and the default overlap is none."""
    model = table_model(4, 1, 2)
    plan = score_plan(model, input=[1, 2, 3])
    assert (len(plan.windows), plan.overlap) == (3, 0)
    parts = [score(model, input=[token]).bound.nats for token in (1, 2, 3)]
    assert score(model, input=[1, 2, 3]).bound.nats == pytest.approx(sum(parts), abs=1e-6)


def test_nats_become_perplexities_and_bits(reader: ToyModel) -> None:
    text = "the cat, the café"
    found = score(reader, input=text, seed=1)
    assert found.tokens == len(score_plan(reader, input=text).tokens)
    assert (found.words, found.bytes) == (4, len(text.encode()))
    assert found.nats_per_token == found.bound.nats / found.tokens
    assert found.standard_error_per_token == found.bound.standard_error / found.tokens
    assert found.perplexity_per_token == pytest.approx(math.exp(found.nats_per_token))
    assert found.perplexity_per_word == pytest.approx(math.exp(found.bound.nats / 4))
    assert found.bits_per_byte == pytest.approx(found.bound.nats / math.log(2) / len(text.encode()))


def test_only_what_is_scored_counts_as_text(reader: ToyModel) -> None:
    found = score(reader, prompt="the", input=" cat sat", suffix=" down", seed=1)
    assert (found.words, found.bytes) == (2, 7)


def test_parts_of_a_text_are_no_words(reader: ToyModel) -> None:
    found = score(reader, input=" cat sat", given=[1], seed=1)
    assert (found.words, found.bytes, found.perplexity_per_word, found.bits_per_byte) == (None, None, None, None)


def test_special_tokens_are_scored_and_are_no_text(reader: ToyModel) -> None:
    ends = score(reader, input=END_TOKEN, seed=1)
    assert (ends.tokens, ends.words, ends.bytes) == (1, 0, 0)
    assert (ends.perplexity_per_word, ends.bits_per_byte) == (None, None)


def test_without_a_tokenizer_there_are_no_words(model: ToyModel) -> None:
    found = score(model, input=[1, 2], seed=1)
    assert (found.words, found.bytes, found.perplexity_per_word, found.bits_per_byte) == (None, None, None, None)


def test_a_perplexity_that_no_double_holds(model: ToyModel) -> None:
    found = score(model, input=[1, 2], seed=1)
    hopeless = replace(found, bound=replace(found.bound, nats=3000.0), words=1)
    assert (hopeless.perplexity_per_token, hopeless.perplexity_per_word) == (None, None)


@pytest.mark.parametrize("estimator", ["orders", "integral"])
def test_tokens_add_up_to_the_bound(model: ToyModel, estimator: str) -> None:
    text = [7, 3, 29, 0, 11, 3, 18, 5]
    found = score(model, prompt=[2], input=text, given=[4], seed=2, estimator=estimator, per_token=True)
    assert [each.position for each in found.token_nats] == [0, 1, 2, 3, 5, 6, 7]
    assert [each.token for each in found.token_nats] == [7, 3, 29, 0, 3, 18, 5]
    assert math.fsum(each.nats for each in found.token_nats) == pytest.approx(found.bound.nats, rel=1e-12)
    without = score(model, prompt=[2], input=text, given=[4], seed=2, estimator=estimator)
    assert without.token_nats == ()
    assert without.bound == found.bound


def test_the_published_integrand_does_not_change_the_bound(model: ToyModel) -> None:
    for estimator in ("orders", "integral"):
        asked = score(model, input=[3, 1, 4, 1], seed=2, estimator=estimator, published_integrand=True)
        plain = score(model, input=[3, 1, 4, 1], seed=2, estimator=estimator)
        assert asked.bound == plain.bound
        assert plain.published is None
        assert asked.published is not None


# --- what cannot be asked for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_fields", "param", "sentence"),
    [
        ({"input": []}, "input", "input has no tokens: at least 1 is needed"),
        ({"input": [30]}, "input", "input holds token id 30; the model's ids are 0 … 29"),
        ({"input": [1], "prompt": [31]}, "prompt", "prompt holds token id 31; the model's ids are 0 … 29"),
        ({"input": [1], "suffix": [99]}, "suffix", "suffix holds token id 99; the model's ids are 0 … 29"),
        ({"input": "a"}, "input", "this model has no tokenizer: input must be a list of token ids"),
        ({"input": [1], "prompt": "a"}, "prompt", "this model has no tokenizer: prompt must be a list of token ids"),
        ({"input": [1, 2], "given": [2]}, "given", "given holds position 2; the input's positions are 0 … 1"),
        ({"input": [1, 2], "given": [1, 0, 1]}, "given", "given holds all 2 tokens of the input: nothing is left"),
        ({"input": [1], "overlap": 6}, "overlap", "overlap is 6; a window has 6 tokens, so it can be at most 5"),
        ({"input": [1, 2], "budget": 15}, "budget", "needs 16 network evaluations with estimator 'orders'; estimator"),
        ({"input": [1] * 9, "budget": 3, "estimator": "integral"}, "budget", "budget is 3: .* needs 4 network"),
    ],
)
def test_what_cannot_be_scored(model: ToyModel, request_fields: dict[str, object], param: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence) as refused:
        score(model, **request_fields)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("tokens", "fields", "param", "sentence"),
    [
        (2**17 + 1, {}, "input", "too long: .* needs 1048584 .* limit is 1048576; estimator 'integral' needs fewer"),
        (2**17 + 1, {"per_token": True, "estimator": "integral"}, "per_token", "inputs of at most 131072 tokens"),
    ],
)
def test_what_is_too_long(tokens: int, fields: dict[str, object], param: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence) as refused:
        score(prime_model(length=1024), input=[1] * tokens, **fields)
    assert refused.value.param == param


@pytest.mark.parametrize("text", ["", " ", " \n\t "])
def test_text_without_a_token(reader: ToyModel, text: str) -> None:
    with pytest.raises(RequestError, match="input has no tokens") as refused:
        score(reader, input=text)
    assert refused.value.param == "input"


@pytest.mark.parametrize("param", ["input", "prompt", "suffix"])
def test_lone_surrogates(reader: ToyModel, param: str) -> None:
    with pytest.raises(ValueError, match=param):
        score(reader, **({"input": "a"} | {param: "a\ud800"}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", None),
        ("input", [-1]),
        ("input", [1.5]),
        ("input", [2**31]),
        ("given", [-1]),
        ("given", 0),
        ("estimator", "exact"),
        ("budget", 0),
        ("budget", 2**20 + 1),
        ("budget", 10.5),
        ("standard_error_per_token", 0),
        ("standard_error_per_token", -0.1),
        ("standard_error_per_token", math.nan),
        ("standard_error_per_token", math.inf),
        ("overlap", -1),
        ("seed", -1),
        ("seed", 2**63),
        ("published_integrand", "yes"),
        ("per_token", 1),
        ("temperature", 1.0),
    ],
)
def test_values_out_of_range(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        ScoreRequest.model_validate({"input": [1]} | {field: value})
    assert {error["loc"][0] for error in refused.value.errors()} == {field}


def test_the_input_is_required() -> None:
    with pytest.raises(ValidationError, match="input"):
        ScoreRequest.model_validate({})


def test_per_token_keeps_the_log_within_bounds(model: ToyModel) -> None:
    """As many replicates as the numbers that may be told allow."""
    told = score_plan(model, input=[1] * 1000, per_token=True, estimator="integral", budget=2**20)
    plain = score_plan(model, input=[1] * 1000, estimator="integral", budget=2**20)
    assert told.replicates == 2**18 // 1000 < plain.replicates
    assert score_plan(model, input=[1] * 1000, per_token=True, budget=2**20).replicates == 2**18 // 4000


def test_more_replicates_than_are_worth_it_are_not_made(model: ToyModel) -> None:
    assert score_plan(model, input=[1], budget=2**20).replicates == 1024
    assert score_plan(model, input=[1], estimator="integral", budget=2**20).replicates == 1024


# --- what a model may do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["orders", "integral"])
@pytest.mark.parametrize("published_integrand", [False, True])
def test_an_input_of_probability_zero(estimator: str, published_integrand: bool) -> None:
    """The table's sequences never begin with class 3."""
    sub_tokenizer = code_table(4, 2)
    model = ToyModel(TableDenoiser(possible_table(), sub_tokenizer), sub_tokenizer)
    with pytest.raises(SamplingError, match="has probability zero under this model"):
        score(model, input=[3, 1], estimator=estimator, published_integrand=published_integrand, seed=1)
    with pytest.raises(SamplingError, match="has probability zero under this model"):
        score(model, prompt=[3], input=[1], estimator=estimator, seed=1)
    assert math.isfinite(score(model, input=[1, 3], estimator=estimator, seed=1).bound.nats)


class Broken(DenoiserAround):
    """Gives one class invalid logits."""

    def head(self, features: Tensor) -> Tensor:
        logits = super().head(features).clone()
        logits[:, -1] = torch.nan
        return logits


def test_a_model_that_gives_invalid_logits(model: ToyModel) -> None:
    broken = replace(model, denoiser=Broken(model.denoiser))
    for estimator in ("orders", "integral"):
        with pytest.raises(SamplingError, match="NaN or infinite logits"):
            score(broken, input=[1, 2, 3], estimator=estimator, seed=1)
