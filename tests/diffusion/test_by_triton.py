"""The whole sampler as a GPU computes it: natively where there is one, in Triton's interpreter elsewhere."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from unmask_diffusion import ActiveSample, Reveal, SampleError, evaluate

from tests.diffusion.test_candidates import assert_likeliest, intermediate_after, network_probabilities, reveals
from tests.helpers import DenoiserAround, ToyModel, plan_for, prime_model, run_to_end

# in the interpreter NumPy warns of what a GPU does without a word
pytestmark = [pytest.mark.triton, pytest.mark.filterwarnings("ignore::RuntimeWarning")]


def model_on(device: torch.device, dtype: torch.dtype = torch.float32) -> ToyModel:
    model = prime_model(length=6, dtype=dtype)
    assert isinstance(model.denoiser, nn.Module)
    model.denoiser.to(device)
    return model


def start(model: ToyModel, candidates: int = 0) -> list[ActiveSample]:
    """Exact and grouped, filtered and greedy, of several lengths."""
    fields: list[dict[str, Any]] = [
        {"canvas": [None, 4, None]},
        {"max_tokens": 5, "sampler": {"steps": 2}, "top_k": 3},
        {"temperature": 0},
    ]
    plans = [plan_for(model, seed=seed, **each) for seed, each in enumerate(fields)]
    return [replace(ActiveSample.start(model, plan, 0), candidates=candidates) for plan in plans]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_samples_do_not_know_their_company(dtype: torch.dtype, device: torch.device) -> None:
    model = model_on(device, dtype)
    alone = [run_to_end(model, [each])[0] for each in start(model)]
    assert run_to_end(model, start(model)) == alone


def test_guessing_ahead_changes_nothing(device: torch.device) -> None:
    model = model_on(device)
    expected = run_to_end(model, start(model)[:1])[0]
    (sample,) = start(model)[:1]
    found: list[Reveal] = []
    while not sample.finished:
        (done,) = evaluate(model, [sample], [3])
        for entry in sample.apply(done):
            assert isinstance(entry, Reveal)
            found.append(entry)
    assert found == expected


def test_candidates_are_the_models_own_probabilities(device: torch.device) -> None:
    model = model_on(device)
    found = evaluate(model, start(model, candidates=4))
    for sample, done in zip(start(model, candidates=4), found, strict=True):
        assert evaluate(model, [sample]) == [done]
        wanted = intermediate_after(sample.digits, reveals(done)[0], model.sub_tokenizer.mask_id)
        for each, (position, known) in zip(done.candidates[0], wanted, strict=True):
            truth = network_probabilities(model, sample.digits, position)
            assert_likeliest(each, truth, known, model.sub_tokenizer, most=4)


class BrokenForLongCanvases(DenoiserAround):
    """Features of canvases of more than 3 tokens are not numbers."""

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        features = self.inner.trunk(canvases, rows).split([len(each) for each in rows])
        return torch.cat(
            [part * torch.nan if len(canvas) > 3 else part for part, canvas in zip(features, canvases, strict=True)]
        )


def test_a_sample_that_cannot_go_on_ends_alone(device: torch.device) -> None:
    model = model_on(device)
    broken = replace(model, denoiser=BrokenForLongCanvases(model.denoiser))
    expected = evaluate(model, start(model))
    outcomes = evaluate(broken, start(model))
    assert outcomes[0] == expected[0]
    errors = [each.entries[0] for each in outcomes[1:]]
    assert all(isinstance(each, SampleError) and not each.impossible for each in errors)
