"""The start-up self-test: passes for what is served, notices arithmetic that depends on company."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from unmask_diffusion import Denoiser
from unmask_kernels import Draws
from unmask_service.engine import BrokenPromiseError, measured_capacity, self_test, start_up

from tests.helpers import DenoiserAround, prime_model, table_model


class Sociable(DenoiserAround):
    """A denoiser whose features depend on how many canvases there are."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner)
        self.longest_evaluation = 0

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        self.longest_evaluation = max(self.longest_evaluation, sum(map(len, canvases)))
        return super().trunk(canvases, rows) * (1 + 1e-6 * len(canvases))


class SociableDraw(DenoiserAround):
    """A denoiser that draws another class where there is company."""

    def draw(self, features: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        return super().draw(features, codes, draws) + (len(features) > 30)


def test_this_machine_keeps_the_promise() -> None:
    self_test(prime_model(length=40))
    self_test(table_model(classes=3, length=2, digits=2))


def test_a_broken_promise_is_noticed() -> None:
    model = prime_model(length=40)
    with pytest.raises(BrokenPromiseError, match="among others"):
        self_test(replace(model, denoiser=Sociable(model.denoiser)))


class Distracted(DenoiserAround):
    """A denoiser whose features depend on how many positions are read."""

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        each = [super(Distracted, self).trunk([canvas], [read]) for canvas, read in zip(canvases, rows, strict=True)]
        return torch.cat([features * (1 + 1e-6 * len(features)) for features in each])


def test_features_that_depend_on_what_else_is_read_are_noticed() -> None:
    model = prime_model(length=40)
    with pytest.raises(BrokenPromiseError, match="guessed"):
        self_test(replace(model, denoiser=Distracted(model.denoiser)))


def test_a_draw_that_minds_its_company_is_noticed() -> None:
    model = prime_model(length=40)
    with pytest.raises(BrokenPromiseError, match="other classes"):
        self_test(replace(model, denoiser=SociableDraw(model.denoiser)))


def test_a_model_with_impossible_canvases_passes() -> None:
    model = table_model(classes=4, length=2, digits=2)
    model.denoiser.probabilities[3] = 0.0  # type: ignore[attr-defined]
    self_test(model)


@pytest.mark.parametrize("full_canvas", [False, True])
@pytest.mark.parametrize("most", [80, 100])
def test_memory_bounds_what_is_evaluated_together(full_canvas: bool, most: int) -> None:
    network = Sociable(prime_model(length=40).denoiser)
    model = replace(prime_model(length=40, full_canvas=full_canvas), denoiser=network)
    with pytest.raises(BrokenPromiseError):
        self_test(model, most)
    assert 40 < network.longest_evaluation <= most


def test_a_first_measurement_is_made_of_positive_parts() -> None:
    """Three parts whose sum is about what was measured; which, only the clock knows."""
    for model in (prime_model(length=40), table_model(classes=3, length=2, digits=2), table_model(3, 1, 1)):
        capacity = measured_capacity(model, 100)
        assert capacity.tokens_per_tick == 100
        assert min(capacity.pace.evaluation, capacity.pace.token, capacity.pace.row) > 0
        assert math.isfinite(capacity.pace.seconds(100, 10))


class Slow(DenoiserAround):
    """A denoiser that takes longer than a first measurement should, and notes what it evaluates."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner)
        self.evaluations: list[tuple[int, int]] = []

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        time.sleep(0.05)
        self.evaluations.append((len(canvases), sum(map(len, rows))))
        return super().trunk(canvases, rows)


def test_a_slow_model_is_timed_three_times_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest of one would be whatever else the machine did then."""
    monkeypatch.setattr(start_up, "ENOUGH_SECONDS", 0.0)
    network = Slow(prime_model(length=40).denoiser)
    measured_capacity(replace(prime_model(length=40), denoiser=network), 1000)
    sizes = Counter(network.evaluations[1:])  # the first one tries the model
    assert len(sizes) == 3
    assert set(sizes.values()) == {3}
