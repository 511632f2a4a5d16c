"""Philox and Gumbel noise inside kernels: the words bit for bit, the noise over its whole range."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from unmask_kernels import Purpose, random_words
from unmask_kernels.philox import halves, philox_4x32

from tests.kernels import plain
from tests.kernels.device_functions import gumbel, races
from tests.kernels.test_noise import rare_mass

pytestmark = pytest.mark.triton
FALSE_ALARM = 1e-6


@pytest.mark.parametrize("purpose", list(Purpose))
def test_words_are_the_reference(device: torch.device, purpose: Purpose) -> None:
    generator = torch.Generator().manual_seed(3)
    seeds, events = torch.randint(-(2**63), 2**63 - 1, (2, 7, 1), generator=generator)
    indices = torch.cat([torch.tensor([0, 2**31, 2**32 - 1]), torch.randint(2**32, (200,), generator=generator)])
    found = random_words(seeds.to(device), events.to(device), indices.to(device), purpose)
    expected = philox_4x32((indices, *halves(events), torch.tensor(int(purpose))), halves(seeds))
    assert torch.equal(found[0].cpu(), expected[0].expand(7, -1))
    assert torch.equal(found[1].cpu(), expected[1].expand(7, -1))


def test_no_words(device: torch.device) -> None:
    nothing = torch.empty(0, dtype=torch.int64, device=device)
    assert random_words(nothing, nothing, nothing)[0].shape == (0,)


def exact(high: Tensor, low: Tensor) -> Tensor:
    """The noise in float64, from the smaller of v and 1 - v."""
    upper = high >= 2**31
    high, low = torch.where(upper, plain.WORD - high, high), torch.where(upper, plain.WORD - low, low)
    small = (high.double() * 2.0**32 + low.double() + 0.5) * 2.0**-64
    return -torch.where(upper, -small.log(), -torch.log1p(-small)).log()


def test_noise_is_right_over_the_whole_range(device: torch.device) -> None:
    """To 5e-7, or five units of the last place where it is greater than 1: from v = 2^-65 to 1 - 2^-65."""
    generator = torch.Generator().manual_seed(5)
    words = torch.randint(2**32, (2, 130_000), generator=generator)
    small = words[0] >> torch.randint(33, (130_000,), generator=generator)
    least = words[1] >> torch.randint(33, (130_000,), generator=generator)
    highest = [0, 0, 0, 2**31 - 1, 2**31 - 1, 2**31, 2**31, 2**32 - 1]
    edges = torch.tensor([highest, [0, 1, 2**32 - 1] * 2 + [0, 2**32 - 1]])
    high = torch.cat([words[0], small, plain.WORD - small, torch.zeros_like(least), edges[0]])
    low = torch.cat([words[1], words[1], words[1], least, edges[1]])
    found = gumbel(high.to(device), low.to(device)).cpu().double()
    expected = exact(high, low)
    assert float(expected.max()) == pytest.approx(65 * np.log(2))
    assert float(expected.min()) == pytest.approx(-np.log(65 * np.log(2)))
    error = (found - expected).abs() / expected.abs().clamp(min=1)
    worst = int(error.argmax())
    assert float(error[worst]) < 5e-7, (int(high[worst]), int(low[worst]), float(found[worst]))


def tail_of_kernel(device: torch.device, x: Tensor) -> Tensor:
    """P(noise >= x) of the kernel's own map (x > 0.4): it falls with the bits, so bisect for the last of them."""
    below, above = torch.zeros_like(x, dtype=torch.int64), torch.full_like(x, 2**62, dtype=torch.int64) * 2 - 1
    for _ in range(64):
        middle = below + (above - below) // 2
        words = (middle >> 32).to(device), (middle & plain.WORD).to(device)
        enough = gumbel(*words).cpu().double() >= x
        below, above = torch.where(enough, middle + 1, below), torch.where(enough, above, middle)
    return below.double() / 2.0**64


def test_tail_is_the_gumbel_tail(device: torch.device) -> None:
    """float32 noise near x is a multiple of x * 2^-24 or so, and its tail is off by as much."""
    x = torch.linspace(1, 36, 71, dtype=torch.float64)
    expected = -torch.expm1(-torch.exp(-x))
    assert torch.allclose(tail_of_kernel(device, x), expected, rtol=1e-5, atol=2.0**-64)


@pytest.mark.parametrize("eps", [1e-6, 1e-8])
def test_rare_classes_keep_their_mass(device: torch.device, eps: float) -> None:
    """Nothing is sampled: 24-bit uniforms would leave 0.973 and 0.015 of it."""
    assert rare_mass(eps, lambda x: tail_of_kernel(device, x)) == pytest.approx(50_000 * eps, rel=1e-4)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_races_are_won_at_their_rates(device: torch.device, temperature: float) -> None:
    """Chi-square of 16,384 draws in the kernel's arithmetic; fails for correct code under 1e-6 of other seeds."""
    logits = 2 * torch.randn(32, generator=torch.Generator().manual_seed(11))
    drawn = races(logits.to(device), temperature, 5, 2**14).cpu()
    expected = (logits.double() / temperature).softmax(0).numpy() * len(drawn)
    counts = np.bincount(drawn.numpy(), minlength=32).astype(float)
    rare = expected < 10
    counts, expected = (np.append(x[~rare], x[rare].sum()) if rare.any() else x for x in (counts, expected))
    assert stats.chisquare(counts, expected).pvalue > FALSE_ALARM


def test_kernels_compile_for_a_gpu_that_is_not_here() -> None:
    """Triton's compiler needs no GPU; the interpreter would forgive what it refuses."""
    script = Path(__file__).with_name("compile_kernels.py")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 11
