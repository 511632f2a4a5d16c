"""The fully masked canvas is evaluated once a length, and nothing else changes."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from unmask_diffusion import NetworkShape, PrimeDenoiser, run

from tests.helpers import ToyModel, plan_for, prime_model


def network_of(model: ToyModel) -> PrimeDenoiser:
    assert isinstance(model.denoiser, PrimeDenoiser)
    return model.denoiser


def learning() -> tuple[ToyModel, PrimeDenoiser]:
    """The same weights, which may change."""
    model = prime_model()
    return model, network_of(model).requires_grad_(True)


def blank(model: ToyModel, length: int) -> Tensor:
    return model.sub_tokenizer.masked(length)


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the canvases that are evaluated."""
    seen: list[int] = []
    evaluate = PrimeDenoiser._evaluate

    def counting(network: PrimeDenoiser, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        seen.extend(len(canvas) for canvas in canvases)
        return evaluate(network, canvases, rows)

    monkeypatch.setattr(PrimeDenoiser, "_evaluate", counting)
    return seen


def test_features_are_the_same_bits_in_the_order_asked_for() -> None:
    model, (_, changing) = prime_model(), learning()
    known = model.sub_tokenizer.codes[torch.arange(7)]
    canvases = [known, blank(model, 5), known[:3], blank(model, 7), blank(model, 5)]
    rows = [torch.tensor(r) for r in ([6, 0], [1], [2], [3, 3], [4, 0])]
    for _ in range(2):
        assert torch.equal(model.denoiser.trunk(canvases, rows), changing.trunk(canvases, rows))


def test_one_evaluation_a_length(lengths: list[int]) -> None:
    model = prime_model()
    for length in (5, 5, 7, 5, 7):
        model.denoiser.trunk([blank(model, length)], [torch.tensor([0])])
    assert lengths == [5, 7]


def test_memory_is_bounded_and_the_least_recent_goes_first(lengths: list[int]) -> None:
    model = prime_model()
    network = network_of(model)
    network.blank_bytes = 2 * network.trunk([blank(model, 7)], [torch.arange(7)]).nbytes
    for length in (6, 7, 5, 7, 6):
        network.trunk([blank(model, length)], [torch.tensor([0])])
    assert lengths == [7, 6, 5, 6]


def test_weights_that_may_change_are_evaluated_every_time(lengths: list[int]) -> None:
    """Training draws samples between its steps."""
    model, network = learning()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    seen = []
    for _ in range(3):
        features = network.trunk([blank(model, 4)], [torch.arange(4)])
        seen.append(features.detach())
        features.sum().backward()
        optimizer.step()
    assert lengths == [4] * 3
    assert not any(torch.equal(*pair) for pair in pairwise(seen))


def test_another_dtype_forgets() -> None:
    model, other = prime_model(), prime_model(dtype=torch.bfloat16)
    network, rows = network_of(model), [torch.arange(6)]
    network.trunk([blank(model, 6)], rows)
    assert torch.equal(
        network.serve_in(torch.bfloat16).trunk([blank(model, 6)], rows), other.denoiser.trunk([blank(model, 6)], rows)
    )


def test_generations_stay_what_they_are() -> None:
    model, (changing, _) = prime_model(), learning()
    for seed in range(5):
        plan = plan_for(model, n=3, seed=seed)
        assert run(model, plan) == run(changing, plan)


def test_a_network_that_moves_forgets() -> None:
    network = PrimeDenoiser(NetworkShape(4, 9, 2, 3, hidden_size=16, blocks=1, heads=2)).requires_grad_(False)
    canvas = torch.full((4, 2), 3)
    network.trunk([canvas], [torch.arange(4)])
    network.to(torch.float64)
    assert not network._blank_features
