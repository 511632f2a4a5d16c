"""The network: a canvas's logits don't know its company; what does not fit is refused."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor
from unmask_diffusion import NetworkShape, PrimeDenoiser

from tests.helpers import prime_model, random_network

LENGTHS = (1, 5, 7, 7, 7, 13, 31, 40, 64, 64)


@pytest.fixture(params=[1, 2, 3, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def logits(network: PrimeDenoiser, canvases: list[Tensor], rows: list[Tensor]) -> Tensor:
    with torch.inference_mode():
        return network.head(network.trunk(canvases, rows))


@pytest.mark.parametrize(("hidden", "dtype"), [*product((12, 20, 64, 192), (torch.float32, torch.bfloat16))])
def test_a_canvas_does_not_know_its_company(hidden: int, dtype: torch.dtype, threads: int) -> None:  # noqa: ARG001
    network = random_network(NetworkShape(64, 100, 2, 10, hidden, blocks=2, heads=2)).serve_in(dtype)
    generator = torch.Generator().manual_seed(1)
    canvases = [torch.randint(0, 11, (length, 2), generator=generator) for length in LENGTHS]
    rows = [torch.arange(0, length, 3) for length in LENGTHS]
    together = logits(network, canvases, rows).split([len(r) for r in rows])
    for canvas, row, among_others in zip(canvases, rows, together, strict=True):
        assert torch.equal(logits(network, [canvas], [row]), among_others), len(canvas)


@pytest.mark.parametrize(("hidden", "dtype"), [*product((12, 20, 64, 192), (torch.float32, torch.bfloat16))])
def test_a_position_does_not_know_what_else_is_read(hidden: int, dtype: torch.dtype) -> None:
    """Guessing ahead reads more of a canvas than its next group, and a remembered canvas was read as a whole."""
    network = random_network(NetworkShape(100, 100, 2, 10, hidden, blocks=2, heads=2)).serve_in(dtype)
    generator = torch.Generator().manual_seed(1)
    for length in (3, 9, 33, 100):
        canvas = torch.randint(0, 11, (length, 2), generator=generator)
        whole = logits(network, [canvas], [torch.arange(length)])
        for count in (1, 2, length // 2 + 1):
            some = torch.randperm(length, generator=generator)[:count]
            assert torch.equal(logits(network, [canvas], [some]), whole[some]), (length, count)


@pytest.mark.parametrize("shape", [(2, 25, 2), (2, 8, 3), (8, 2), (1, 0, 2)])
def test_sub_tokens_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sub_tokens must be"):
        prime_model(length=24).denoiser.joint_logits(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("digit", [-1, 10**6])
def test_sub_tokens_out_of_range_are_refused(digit: int) -> None:
    with pytest.raises(ValueError, match="mask id"):
        prime_model(length=24).denoiser.joint_logits(torch.full((1, 8, 2), digit))


def test_no_canvases_are_no_logits() -> None:
    model = prime_model(length=24)
    assert model.denoiser.joint_logits(torch.zeros(0, 8, 2, dtype=torch.int64)).shape == (0, 8, 30)
