"""What an evaluation asks of a GPU besides arithmetic: copies, waiting, and kernels, counted without one."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from unmask_diffusion import ActiveSample, NetworkShape, Outcome, evaluate

from tests.helpers import ToyModel, code_table, plan_for, random_network
from tests.pretended_gpu import PretendedGpu

# in the interpreter NumPy warns of what a GPU does without a word
pytestmark = [pytest.mark.triton, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

LENGTH = 8
# What torch launches of a block that is not the last, in bfloat16: two norms, five casts, three of the rotation, GELU,
# two sums with the residual stream.
A_BLOCK = 13
# What does not grow with the blocks: embedding, rotary tables, what the last block gathers, the last norm and the draw.
AROUND = 24


def model(blocks: int, dtype: torch.dtype = torch.bfloat16) -> ToyModel:
    shape = NetworkShape(LENGTH, 30, 2, 6, hidden_size=16, blocks=blocks, heads=2)
    return ToyModel(random_network(shape).serve_in(dtype), code_table(30, 2, 6))


def samples(model: ToyModel) -> list[ActiveSample]:
    """Two, each with one given token: a blank canvas would need no evaluation the second time."""
    plan = plan_for(model, canvas=[1] + [None] * (LENGTH - 1), n=2, seed=3)
    return [ActiveSample.start(model, plan, index) for index in range(2)]


def evaluated(model: ToyModel, works: list[ActiveSample], budget: int = 1) -> tuple[PretendedGpu, list[Outcome]]:
    """The outcome of an evaluation on the pretended GPU, and what it took, once all tables are there."""
    assert isinstance(model.denoiser, nn.Module)
    with torch.inference_mode(), PretendedGpu() as gpu:
        gpu.take(model.denoiser)
        evaluate(model, works[:1])
        gpu.forget()
        return gpu, evaluate(model, works, [budget] * len(works))


def test_one_copy_for_the_trunk_one_for_the_draw_and_one_back() -> None:
    expected = evaluate(model(2, torch.float32), samples(model(2, torch.float32)))
    gpu, found = evaluated(model(2, torch.float32), samples(model(2)))
    assert [each.entries for each in found] == [each.entries for each in expected]
    assert dict(gpu.uploads) == {"aten._to_copy": 2}
    assert dict(gpu.downloads) == {"aten._to_copy": 1}


def test_kernels_of_a_block() -> None:
    counts = [evaluated(model(blocks), samples(model(blocks)))[0] for blocks in (1, 3)]
    one, three = (gpu.launches.total() for gpu in counts)
    assert (three - one) / 2 == A_BLOCK, counts[1].launches - counts[0].launches
    assert one == A_BLOCK + AROUND, counts[0].launches
    # qkv (twice in the last block), out, in, out; attention
    assert [gpu.products.total() for gpu in counts] == [6, 16]


def test_drafts_cost_a_draw_more() -> None:
    works = samples(model(1))
    gpu, found = evaluated(model(1), works, budget=3)
    works = [replace(work, drafts=outcome.drafts) for work, outcome in zip(works, found, strict=True)]
    assert all(len(work.drafts) == 2 for work in works)
    gpu, _ = evaluated(model(1), works, budget=3)
    draws = gpu.downloads["aten._to_copy"]
    assert draws <= 3  # the steps, then the drafts, of which two may belong to one position
    # the trunk; the rows and the arguments of each draw
    assert gpu.uploads.total() <= 1 + 2 * draws
    assert set(gpu.downloads) == {"aten._to_copy"}
