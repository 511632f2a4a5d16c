"""Every kernel on the device against its reference in float64 on the CPU, and a row alone against in company."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from unmask_kernels import (
    agrees,
    attention,
    consistent_log_softmax,
    draw_from_hidden,
    draw_from_logits,
    fixed_tile_linear,
    linear_gelu_tanh,
    random_words,
    rms_norm,
)
from unmask_kernels.attention import attention_reference
from unmask_kernels.categorical import draw_reference
from unmask_kernels.draws import Draws
from unmask_kernels.log_softmax import consistent_log_softmax_reference
from unmask_kernels.philox import halves, philox_4x32

from benchmarks.gpu.part import Options, Result, run_part
from benchmarks.kernels.__main__ import DIGITS, Inputs

CPU = torch.device("cpu")
# float32 noise of the GPU and float64 noise of the reference may put two nearly equal scores in another order
MOST_OTHER_DRAWS = 1e-3
Run = Callable[[Tensor], Tensor]
COMPANY = (1, 2, 7, 64, 65, 130)


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def near(name: str, found: Tensor, expected: Tensor, most: float) -> Result:
    """Whether the largest difference is small; infinities must agree."""
    found, expected = found.cpu().double(), expected.double()
    finite = expected.isfinite()
    agree = torch.equal(found.masked_fill(finite, 0), expected.masked_fill(finite, 0))
    error = float((found[finite] - expected[finite]).abs().max())
    return Result(name, error, "error", agree and error <= most, f"at most {most:g}")


def alone(name: str, run: Run, rows: int, device: torch.device) -> Result:
    """Whether the first rows have the same bits in a call of their own, and from another place on."""
    every = run(torch.arange(rows, device=device))
    held = all(
        torch.equal(run(torch.arange(first, first + count, device=device)), every[first : first + count])
        for count in COMPANY
        if count <= rows
        for first in (0, rows - count)
    )
    return Result(f"{name}: a row has the same bits alone", held=held)


def draws_of(options: Options) -> Iterator[Result]:
    rows, classes = (65, 500) if options.small else (130, 50257)
    inputs, there = (Inputs.make(rows, classes, device) for device in (CPU, options.device))
    for digits in range(DIGITS + 1):
        revealed = inputs.revealed(digits)
        expected = draw_reference(inputs.logits, inputs.codes, inputs.draws(revealed))
        draws = inputs.draws(revealed)
        name = f"draw, {digits} of {DIGITS} digits revealed"
        found = draw_from_logits(there.logits, there.codes, draws)
        yield same_draws(name, found, expected)
        run: Run = partial(draws_at, there, draws)
        yield alone(name, run, rows, options.device)
        name = f"log-softmax, {digits} of {DIGITS} digits revealed"
        shown = revealed.to(options.device)
        exact = consistent_log_softmax_reference(inputs.logits.double(), revealed, inputs.codes)
        yield near(name, consistent_log_softmax(there.logits, shown, there.codes), exact, 1e-4)
        run = partial(log_softmax_at, there, shown)
        yield alone(name, run, rows, options.device)
        yield from heads_of(options, inputs, there, digits)
    filtered = Draws(
        **vars(draws) | {"top_k": torch.arange(rows) % 9, "top_p": 1 - torch.arange(rows).double() % 5 / 9}
    )
    expected = draw_reference(inputs.logits, inputs.codes, filtered)
    yield same_draws("draw with top_k and top_p", draw_from_logits(there.logits, there.codes, filtered), expected)


def draws_at(inputs: Inputs, draws: Draws, rows: Tensor) -> Tensor:
    return draw_from_logits(inputs.logits[rows], inputs.codes, draws.take(rows.cpu()))


def log_softmax_at(inputs: Inputs, revealed: Tensor, rows: Tensor) -> Tensor:
    return consistent_log_softmax(inputs.logits[rows], revealed[rows], inputs.codes)


def heads_of(options: Options, inputs: Inputs, there: Inputs, digits: int) -> Iterator[Result]:
    rows, classes, inner = *inputs.logits.shape, 64 if options.small else 768
    draws = inputs.draws(inputs.revealed(digits))
    for dtype in (torch.float32, torch.bfloat16):
        hidden = random(rows, inner).to(dtype)
        weight = (random(classes, inner, seed=2) * inner**-0.5).to(dtype)
        logits = hidden.double() @ weight.double().T
        name = f"head and draw in {str(dtype)[6:]}, {digits} of {DIGITS} digits revealed"
        moved, heavy = hidden.to(options.device), weight.to(options.device)

        def run(rows: Tensor, moved: Tensor = moved, heavy: Tensor = heavy, draws: Draws = draws) -> Tensor:
            return draw_from_hidden(moved[rows], heavy, None, there.codes, draws.take(rows.cpu()))

        found = run(torch.arange(rows, device=options.device))
        yield same_draws(name, found, draw_reference(logits, inputs.codes, draws))
        yield alone(name, run, rows, options.device)


def same_draws(name: str, found: Tensor, expected: Tensor) -> Result:
    other = float((found.cpu() != expected).double().mean())
    # among few rows one may differ
    return Result(name, other, "other", other <= max(MOST_OTHER_DRAWS, 1 / len(expected)), "share of other classes")


def products_of(options: Options) -> Iterator[Result]:
    rows, inner, outer = (130, 72, 100) if options.small else (1025, 768, 3072)
    x, weight, bias = random(rows, inner), random(outer, inner, seed=2) * inner**-0.5, random(outer, seed=3)
    for dtype, most in ((torch.float32, 2e-5), (torch.bfloat16, 0.05)):
        given = [part.to(dtype) for part in (x, weight, bias)]
        exact = given[0].double() @ given[1].double().T + given[2].double()
        there = [part.to(options.device) for part in given]
        for name, run, expected in (
            ("linear", fixed_tile_linear, exact),
            ("linear and GELU", linear_gelu_tanh, torch.nn.functional.gelu(exact, approximate="tanh")),
        ):
            about = f"{name} in {str(dtype)[6:]}"
            yield near(about, run(*there), expected, most)
            yield alone(about, partial(layer_at, run, there), rows, options.device)
    weight = random(inner, seed=4).to(options.device)
    expected = x.double() * (x.double().square().mean(1, keepdim=True) + 1e-6).rsqrt() * weight.cpu().double()
    moved = x.to(options.device)
    yield near("rms_norm", rms_norm(moved, weight, 1e-6), expected, 1e-4)
    yield alone("rms_norm", lambda rows: rms_norm(moved[rows], weight, 1e-6), rows, options.device)


def layer_at(layer: Callable[[Tensor, Tensor, Tensor], Tensor], given: list[Tensor], rows: Tensor) -> Tensor:
    x, weight, bias = given
    return layer(x[rows], weight, bias)


def attention_at(parts: list[Tensor], canvases: Tensor) -> Tensor:
    q, k, v = (part[canvases] for part in parts)
    return attention(q, k, v)


def attention_of(options: Options) -> Iterator[Result]:
    canvases, heads, width = (5, 2, 16) if options.small else (33, 12, 64)
    for length in (7, 40) if options.small else (40, 128, 1024):
        for dtype, most in ((torch.float32, 1e-5), (torch.bfloat16, 0.03)):
            parts = [random(canvases, length, heads, width, seed=seed).to(dtype) for seed in range(3)]
            there = [part.to(options.device) for part in parts]
            expected = attention_reference(*(part[:2].double() for part in parts))
            name = f"attention, {length} tokens, {str(dtype)[6:]}"
            yield near(name, attention(*there)[:2], expected, most)
            yield alone(name, partial(attention_at, there), canvases, options.device)
            yield from backends_of(options, name, there)


def backends_of(options: Options, name: str, parts: list[Tensor]) -> Iterator[Result]:
    """What torch's own backends promise here, and what they take: which of them `attention` could use."""
    q, k, v = (part.transpose(1, 2) for part in parts)
    for backend in (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        about = f"{name}: torch's {backend.name.lower().replace('_', ' ')}"

        def run(rows: Tensor, backend: SDPBackend = backend) -> Tensor:
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(q[rows], k[rows], v[rows])

        every = torch.arange(len(q), device=options.device)
        try:
            same = alone(about, run, len(q), options.device).held
            yield Result(about, 1000 * options.seconds(partial(run, every)), "ms", note=f"same bits alone: {same}")
        except RuntimeError:
            yield Result(about, note="not for these inputs here")


def words_of(options: Options) -> Iterator[Result]:
    seeds = torch.tensor([0, 1, 2**63 - 1])[:, None]
    events = torch.tensor([0, 2**32 + 5, 63 * 2**32])[:, None]
    classes = torch.arange(5000)[None]
    expected = philox_4x32((classes, *halves(events), torch.zeros_like(classes)), halves(seeds))[:2]
    there = [each.to(options.device) for each in (seeds, events, classes)]
    found = random_words(there[0], there[1], there[2])
    held = all(torch.equal(a.cpu(), b.expand(a.shape)) for a, b in zip(found, expected, strict=True))
    yield Result("random words are Philox's, bit for bit", held=held)
    codes = Inputs.make(3, 500, CPU)
    revealed = codes.revealed(2)
    same = agrees(revealed.to(options.device), codes.codes.to(options.device))
    yield Result("consistent classes", held=torch.equal(same.cpu(), agrees(revealed, codes.codes)))


@torch.inference_mode()
def results(options: Options) -> Iterator[Result]:
    if options.gpu:
        yield Result("GPU", note=f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for part in (words_of, products_of, attention_of, draws_of):
        yield from part(options)


if __name__ == "__main__":
    run_part(results)
