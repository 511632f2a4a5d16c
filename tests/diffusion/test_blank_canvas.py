"""The fully masked canvas is evaluated once a length, and nothing else changes."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from unmask_diffusion import DenoiserAround, RememberBlankCanvas, run

from tests.helpers import ToyModel, markov_model, plan_for, prime_model


class Counting(DenoiserAround):
    """Notes the lengths of the canvases that it evaluates."""

    def __init__(self, model: ToyModel) -> None:
        super().__init__(model.denoiser)
        self.lengths: list[int] = []

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        self.lengths += [len(canvas) for canvas in canvases]
        return super().trunk(canvases, rows)


def blank(model: ToyModel, length: int) -> Tensor:
    return model.sub_tokenizer.masked(length)


def test_features_are_the_same_bits_in_the_order_asked_for() -> None:
    model = prime_model()
    remembering = RememberBlankCanvas(model.denoiser, model.sub_tokenizer.mask_id)
    known = model.sub_tokenizer.codes[torch.arange(7)]
    canvases = [known, blank(model, 5), known[:3], blank(model, 7), blank(model, 5)]
    rows = [torch.tensor(r) for r in ([6, 0], [1], [2], [3, 3], [4, 0])]
    for _ in range(2):
        assert torch.equal(remembering.trunk(canvases, rows), model.denoiser.trunk(canvases, rows))


def test_one_evaluation_a_length() -> None:
    model = prime_model()
    counting = Counting(model)
    remembering = RememberBlankCanvas(counting, model.sub_tokenizer.mask_id)
    for length in (5, 5, 7, 5, 7):
        remembering.trunk([blank(model, length)], [torch.tensor([0])])
    assert counting.lengths == [5, 7]


def test_memory_is_bounded_and_the_least_recent_goes_first() -> None:
    model = prime_model()
    counting = Counting(model)
    two = 2 * model.denoiser.trunk([blank(model, 7)], [torch.arange(7)]).nbytes
    remembering = RememberBlankCanvas(counting, model.sub_tokenizer.mask_id, most_bytes=two)
    for length in (7, 6, 7, 5, 7, 6):
        remembering.trunk([blank(model, length)], [torch.tensor([0])])
    assert counting.lengths == [7, 6, 5, 6]


@pytest.mark.parametrize("model", [prime_model(), markov_model(4, 6, 2)], ids=["prime", "markov"])
def test_generations_stay_what_they_are(model: ToyModel) -> None:
    remembering = replace(model, denoiser=RememberBlankCanvas(model.denoiser, model.sub_tokenizer.mask_id))
    for seed in range(5):
        plan = plan_for(model, n=3, seed=seed)
        assert run(remembering, plan) == run(model, plan)
