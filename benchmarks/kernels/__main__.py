"""Each kernel beside its reference and beside the limits of the machine, all measured in one run.

A limit is the least work of the kernel, done alone and at its size: copying the bytes that it moves, generating the
random numbers (Philox and two logarithms each) that it needs, multiplying the same matrices. The fraction of the limit
is against the slowest of them. CPU forms are always timed, Triton kernels where there is a GPU: on the device alone,
with an empty L2 cache. Needs torch and the kernels alone (and Triton on a GPU):

    python -m benchmarks.kernels
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import linear
from unmask_kernels import Draws, agrees, consistent_log_softmax, draw, random_words
from unmask_kernels.categorical import draw_reference
from unmask_kernels.log_softmax import consistent_log_softmax_reference
from unmask_kernels.philox import gumbel_from_words, halves, philox_4x32

from benchmarks.harness import Numbers, Table, run_benchmark

DIGITS = 4
HIDDEN = 768
NOISE_BLOCK = 32_000
CPU = torch.device("cpu")
Run = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A kernel, its reference and its limits."""

    kernel: str  # name and case
    shape: str  # of the inputs
    run: Run
    reference: Run
    bytes_moved: int  # read and written at least
    limits: Mapping[str, Run] = field(default_factory=dict)  # by name; "matmul" is bare products


@dataclass(frozen=True)
class Row:
    """Measurements of a case; seconds are medians."""

    device: str
    kernel: str
    shape: str
    seconds: float
    ratio_to_reference: float  # the reference's seconds divided by the kernel's
    ratio_to_matmul: float | None  # the kernel's seconds divided by those of its bare products, if it has any
    bytes_moved: int
    limit: str  # name of the slowest limit
    fraction_of_limit: float  # the limit's seconds divided by the kernel's


@dataclass(frozen=True)
class Inputs:
    """Arguments of the kernels: base-b codes, float32 logits, temperature 1."""

    codes: Tensor
    logits: Tensor
    seeds: Tensor
    events: Tensor
    temperature: Tensor

    @classmethod
    def make(cls, rows: int, classes: int, device: torch.device) -> "Inputs":
        """Random logits [rows, classes] on a device."""
        places = base_of(classes) ** torch.arange(DIGITS - 1, -1, -1)
        codes = torch.arange(classes)[:, None] // places % base_of(classes)
        logits = torch.randn(rows, classes, generator=torch.Generator().manual_seed(1))
        events = torch.arange(rows)
        temperature = torch.ones(rows, dtype=torch.float64)
        return cls(*(each.to(device) for each in (codes, logits, torch.full_like(events, 7), events, temperature)))

    def revealed(self, digits: int) -> Tensor:
        """Rows with their first digits revealed, int64 [rows, DIGITS], each of a different class."""
        shown = self.codes[torch.arange(len(self.logits), device=self.codes.device) * 7919 % len(self.codes)].clone()
        shown[:, digits:] = int(self.codes.max()) + 1
        return shown

    def draws(self, revealed: Tensor) -> Draws:
        """The draws of these rows, without filters."""
        off = torch.zeros_like(self.seeds), torch.ones_like(self.temperature)
        return Draws(revealed, self.seeds, self.events, self.temperature, *off)


def base_of(classes: int) -> int:
    """The least base in which this many classes have DIGITS digits."""
    base = math.isqrt(math.isqrt(classes))
    return base if base**DIGITS >= classes else base + 1


def cases(rows: int, classes: int, device: torch.device) -> Iterator[Case]:
    inputs = Inputs.make(rows, classes, device)
    yield draw_case(inputs, 0)
    yield draw_case(inputs, DIGITS // 2)
    yield log_softmax_case(inputs, 0)
    yield log_softmax_case(inputs, DIGITS // 2)
    yield words_case(inputs)
    if device.type == "cuda":
        for digits in (0, 1, DIGITS // 2):
            yield head_case(inputs, digits)


def draw_case(inputs: Inputs, digits: int) -> Case:
    """The draw with some digits revealed; on a GPU without the checks, which synchronise with the device."""
    revealed, device = inputs.revealed(digits), inputs.logits.device
    arguments = inputs.logits, revealed, inputs.codes, inputs.seeds, inputs.events, inputs.temperature
    draws = inputs.draws(revealed)
    candidates = int(agrees(revealed, inputs.codes).sum())
    run: Run = partial(draw, *arguments)
    if device.type == "cuda":
        from unmask_kernels.triton.categorical import draw_in_tiles

        run = partial(draw_in_tiles, inputs.logits, inputs.codes, draws)
    return Case(
        f"draw, {digits} of {DIGITS} digits revealed",
        shape_of(inputs.logits),
        run,
        partial(draw_reference, inputs.logits, inputs.codes, draws),
        4 * candidates,
        {"copy": copy_of(4 * candidates, device), "noise": noise_of(candidates, device)},
    )


def log_softmax_case(inputs: Inputs, digits: int) -> Case:
    """The softmax with some digits revealed; it reads each candidate twice, for the sum and for the result."""
    arguments = inputs.logits, inputs.revealed(digits), inputs.codes
    moved = 4 * (2 * int(agrees(*arguments[1:]).sum()) + inputs.logits.numel())
    return Case(
        f"consistent_log_softmax, {digits} of {DIGITS} digits revealed",
        shape_of(inputs.logits),
        partial(consistent_log_softmax, *arguments),
        partial(consistent_log_softmax_reference, *arguments),
        moved,
        {"copy": copy_of(moved, inputs.logits.device)},
    )


def head_case(inputs: Inputs, digits: int) -> Case:
    """Head and draw in one kernel, bfloat16, on a GPU; the reference is the library's product and `draw`'s kernels."""
    from unmask_kernels.consistency import class_table
    from unmask_kernels.triton.categorical import draw_in_tiles as draw_logits
    from unmask_kernels.triton.head import Head, draw_in_tiles

    revealed, device = inputs.revealed(digits), inputs.logits.device
    generator = torch.Generator().manual_seed(2)
    hidden, weight = (
        torch.randn(size, HIDDEN, generator=generator).to(device, torch.bfloat16) for size in inputs.logits.shape
    )
    table = class_table(inputs.codes)
    if table is None:
        raise ValueError("base-b codes have a table")
    draws = inputs.draws(revealed)
    consistent = agrees(revealed, inputs.codes)
    moved = 2 * HIDDEN * (len(hidden) + int(consistent.any(0).sum()))
    limits = {"copy": copy_of(moved, device), "noise": noise_of(int(consistent.sum()), device)}
    if not digits:
        limits["matmul"] = partial(linear, hidden, weight)
    return Case(
        f"draw_from_hidden, {digits} of {DIGITS} digits revealed",
        f"{list(hidden.shape)} x {list(weight.shape)} bfloat16",
        partial(draw_in_tiles, Head(hidden, weight, None), table, draws),
        lambda: draw_logits(linear(hidden, weight), inputs.codes, draws),
        moved,
        limits,
    )


def words_case(inputs: Inputs) -> Case:
    """Philox alone, with words as int64."""
    device, moved = inputs.logits.device, 16 * inputs.logits.numel()
    classes = torch.arange(len(inputs.codes), device=device)[None]
    seeds, events = inputs.seeds[:, None], inputs.events[:, None]
    purpose = torch.zeros_like(classes)
    return Case(
        "random_words",
        shape_of(inputs.logits),
        partial(random_words, seeds, events, classes),
        lambda: philox_4x32((classes, *halves(events), purpose), halves(seeds)),
        moved,
        {"copy": copy_of(moved, device)},
    )


def shape_of(logits: Tensor) -> str:
    return f"{list(logits.shape)} {str(logits.dtype)[6:]}"


def copy_of(moved: int, device: torch.device) -> Run:
    """A copy of half of these bytes: each byte is read and written."""
    source = torch.zeros(max(1, moved // 2), dtype=torch.uint8, device=device)
    return partial(torch.empty_like(source).copy_, source)


def noise_of(numbers: int, device: torch.device) -> Run:
    """Generation of this many Gumbel numbers, none of which is stored."""
    if device.type == "cuda":
        from benchmarks.kernels.gpu_limits import bare_noise

        return partial(bare_noise, numbers, device)
    return partial(_noise_on_cpu, numbers)


def _noise_on_cpu(numbers: int) -> None:
    seed = torch.ones(1, dtype=torch.int64)
    for start in range(0, numbers, NOISE_BLOCK):
        gumbel_from_words(*random_words(seed, seed, torch.arange(start, min(numbers, start + NOISE_BLOCK))))


def seconds_of(run: Run, device: torch.device, seconds: float) -> float:
    """The median of as many runs as fit into some seconds, at least three, after a warm-up."""
    if device.type == "cuda":
        from benchmarks.kernels.gpu_limits import seconds_on_gpu

        return float(seconds_on_gpu(run))
    run()
    measured: list[float] = []
    while len(measured) < 3 or sum(measured) < seconds:
        begun = time.perf_counter()
        run()
        measured.append(time.perf_counter() - begun)
    return median(measured)


@torch.inference_mode()
def measure(case: Case, device: torch.device, seconds: float) -> Row:
    clock = partial(seconds_of, device=device, seconds=seconds)
    ours, reference = clock(case.run), clock(case.reference)
    limits = {name: clock(run) for name, run in case.limits.items()}
    hardest = max(limits, key=lambda name: limits[name])
    return Row(
        device=device.type,
        kernel=case.kernel,
        shape=case.shape,
        seconds=ours,
        ratio_to_reference=reference / ours,
        ratio_to_matmul=ours / limits["matmul"] if "matmul" in limits else None,
        bytes_moved=case.bytes_moved,
        limit=hardest,
        fraction_of_limit=limits[hardest] / ours,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=64, help="N (default: 64)")
    parser.add_argument("--classes", type=int, default=50257, help="C (default: 50257)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each median on the CPU (default: 1)")


def measured(arguments: argparse.Namespace) -> Numbers:
    devices, gpu = [CPU], "no GPU here: the Triton kernels were not measured"
    if torch.cuda.is_available():
        devices, gpu = [CPU, torch.device("cuda")], torch.cuda.get_device_name()
    rows = [
        measure(case, device, arguments.seconds)
        for device in devices
        for case in cases(arguments.rows, arguments.classes, device)
    ]
    columns = ["device", "kernel", "shape", "ms", "times the reference", "of its limit", "limit"]
    lines = []
    for row in rows:
        ratios = f"{1000 * row.seconds:.3f}", f"{row.ratio_to_reference:.2f}", f"{row.fraction_of_limit:.0%}"
        lines.append([row.device, row.kernel, row.shape, *ratios, row.limit])
    print(Table(gpu, columns, lines))
    return {"gpu": gpu, "kernels": rows}


if __name__ == "__main__":
    sys.exit(run_benchmark("kernels", sys.modules[__name__], sys.argv[1:]))
