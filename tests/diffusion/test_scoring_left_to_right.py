"""The log-probability along the one order from left to right: an evaluation a token, the rest to its right masked."""

import itertools
import math

import pytest
import torch
from pydantic import ValidationError
from unmask_diffusion import RequestError, ScoreRequest, make_score_plan, score

from tests.helpers import markov_model, prime_model, random_chain, random_table, table_model

LEFT = {"estimator": "left_to_right"}


@pytest.mark.parametrize("digits", [1, 2])
def test_it_is_the_truth_where_that_is_known(digits: int) -> None:
    """Of a chain: the initial probability and the transitions, each token's part on its own."""
    initial, transition = random_chain(5, seed=3)
    tokens = [2, 0, 4, 4, 1, 3]
    found = score(markov_model(5, 8, digits, seed=3), input=tokens, per_token=True, **LEFT)
    parts = [float(initial[2]), *(float(transition[a, b]) for a, b in itertools.pairwise(tokens))]
    assert [each.nats for each in found.token_nats] == pytest.approx([-part for part in parts], abs=1e-5)
    assert found.bound.nats == pytest.approx(-sum(parts), abs=1e-5)
    assert (found.bound.standard_error, found.network_evaluations, found.replicates) == (0, 6, 1)


def test_of_a_table_with_what_is_given() -> None:
    table = random_table(3, 3, seed=1)
    model = table_model(3, 3, digits=2, seed=1)
    given = float(table[1, 2, 0] - table[1].logsumexp((0, 1)))
    assert score(model, prompt=[1], input=[2, 0], **LEFT).bound.nats == pytest.approx(-given, abs=1e-5)
    behind = float(table[1, 2, 0] - table[:, 2, 0].logsumexp(0))
    assert score(model, input=[1], suffix=[2, 0], **LEFT).bound.nats == pytest.approx(-behind, abs=1e-5)


def test_the_states_and_the_likeliest_classes_of_a_network() -> None:
    model = prime_model(length=12)
    tokens = [3, 17, 3, 29, 8]
    found = score(model, input=tokens, logprobs=3, **LEFT)
    for place, each in enumerate(found.token_nats):
        canvas = model.sub_tokenizer.masked(5)
        canvas[:place] = model.sub_tokenizer.codes[tokens[:place]]
        expected = model.denoiser.joint_logits(canvas[None])[0, place].double().log_softmax(0)
        assert each.nats == pytest.approx(-float(expected[tokens[place]]), abs=1e-4)
        top = expected.topk(3)
        assert [token for token, _ in each.likeliest] == top.indices.tolist()
        assert [nats for _, nats in each.likeliest] == pytest.approx((-top.values).tolist(), abs=1e-4)
    best = [each.likeliest[0][0] for each in found.token_nats]
    again = score(model, input=[best[0]], logprobs=1, **LEFT).token_nats[0]
    assert again.nats == again.likeliest[0][1], "the same number, bit for bit: clients compare them"


def test_a_text_longer_than_the_model_is_cut_into_windows() -> None:
    model = markov_model(4, 8, 2, seed=5)
    tokens = torch.randint(4, (30,), generator=torch.Generator().manual_seed(1)).tolist()
    initial, transition = random_chain(4, seed=5)
    truth = float(initial[tokens[0]]) + sum(float(transition[a, b]) for a, b in itertools.pairwise(tokens))
    found = score(model, input=tokens, **LEFT)
    assert found.bound.nats == pytest.approx(-truth, abs=1e-4), "a chain needs one token of context"
    assert found.network_evaluations == 30


def test_what_it_cannot_be_combined_with() -> None:
    for fields in (
        {"standard_error_per_token": 0.1},
        {"published_integrand": True},
        {"block_length": 1},
    ):
        with pytest.raises(ValidationError, match=next(iter(fields))):
            ScoreRequest.model_validate({"input": [1], **LEFT, **fields})
    with pytest.raises(ValidationError, match="logprobs"):
        ScoreRequest(input=[1], logprobs=1)
    with pytest.raises(RequestError, match="budget is 2"):
        make_score_plan(markov_model(4, 8, 2), ScoreRequest(input=[1, 2, 3], estimator="left_to_right", budget=2))
    assert math.isclose(make_score_plan(markov_model(4, 8, 2), ScoreRequest(input=[1], **LEFT)).rows, 1)  # type: ignore[arg-type]
