"""What a GPU can do at best: the random numbers of a draw with nothing read and next to nothing written."""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
import triton.testing
from unmask_kernels.triton.philox import gumbel_from_words, random_words

_BLOCK = 1024


@triton.jit
def _bare_noise_kernel(seeds: tl.tensor, greatest: tl.tensor, block: tl.constexpr) -> None:
    place = tl.program_id(0) * block + tl.arange(0, block)
    seed = tl.load(seeds)
    high, low = random_words(seed, seed, place)
    tl.store(greatest + tl.program_id(0), tl.max(gumbel_from_words(high, low), 0))


def bare_noise(numbers: int, device: torch.device) -> torch.Tensor:
    """Make this many Gumbel numbers (a multiple of 1024, at least); return the greatest of each 1024, float32."""
    programs = triton.cdiv(numbers, _BLOCK)
    seed, greatest = torch.ones((), dtype=torch.int64, device=device), torch.empty(programs, device=device)
    _bare_noise_kernel[programs,](seed, greatest, _BLOCK)
    return greatest


def seconds_on_gpu(run: Callable[[], object]) -> float:
    """Return the median seconds of the device alone, its L2 cache emptied before each run."""
    return float(triton.testing.do_bench(run, return_mode="median")) / 1000
