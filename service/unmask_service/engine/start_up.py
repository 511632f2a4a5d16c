"""What is done once before an engine runs: test this machine, time the model on it, name its kind.

Whether a sample's arithmetic depends on the other canvases is a property of libraries, not of arithmetic: it changes
with the processor, the threads and the versions.
"""

import hashlib
import platform
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor
from unmask_diffusion import ActiveSample, Model, evaluate
from unmask_kernels import FUSES_GELU, DrawError, Draws

from unmask_service.engine.isolation import check_model, samples_to_try
from unmask_service.forecast import Capacity, first_pace

# Raise it with every change of ours after which some machine may compute other bits.
ARITHMETIC = 4

# self-test: canvases of one length share a call of attention, so lengths repeat; odd ones leave tiles unfilled
LENGTHS = (1, 3, 17, 17, 40, 64, 64, 101, 600, 600)
MOST_TOKENS = 2048  # of all its canvases together, so that a large model is ready soon

# timing: limits of all canvases together, so that a large model is ready soon
MOST_TIMED_TOKENS, MOST_CANVASES = 1024, 8
MOST_ROWS = 32  # enough rows of logits to see what one costs
# every size is timed at least so often, and more often, up to so often, within the time
LEAST_TURNS, MOST_TURNS, ENOUGH_SECONDS = 3, 7, 0.5


def fingerprint(device: torch.device, dtype: torch.dtype) -> str:
    """The kind of machine and arithmetic of a model on a device: equal fingerprints give equal tokens.

    A short hash of our own arithmetic, processor, device, dtype, torch version, threads and fused operations.
    """
    facts = [
        str(ARITHMETIC),
        platform.machine(),
        processor_name(),
        torch.backends.cpu.get_cpu_capability(),
        str(device),
        str(dtype),
        torch.__version__,
        str(torch.get_num_threads()),
        str(FUSES_GELU),
    ]
    if device.type == "cuda":
        facts.append(torch.cuda.get_device_name(device))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def processor_name() -> str:
    """The processor's name, from Linux or else from Python."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


class BrokenPromiseError(RuntimeError):
    """On this machine the bits of a canvas depend on the other canvases of its evaluation."""


@torch.inference_mode()
def self_test(model: Model, most_tokens: int = MOST_TOKENS) -> None:
    """Evaluate a canvas alone and among others, and compare the bits of its features, and the classes drawn.

    All canvases, always two at least, have at most `most_tokens` tokens together, where memory is short.

    Raises BrokenPromiseError: they differ.
    """
    generator = torch.Generator().manual_seed(0)
    longest, most_tokens = model.denoiser.length, min(most_tokens, MOST_TOKENS)
    lengths = [longest if model.full_canvas else min(length, longest) for length in LENGTHS]  # shortest first
    fit = sum(total <= most_tokens for total in accumulate(lengths))
    canvases = [_canvas(model, generator, length) for length in lengths[: max(2, fit)]]
    reading = [torch.arange(0, len(canvas), 3) for canvas in canvases]
    sizes = [len(rows) for rows in reading]
    features, classes = (part.split(sizes) for part in _evaluated(model, canvases, reading))
    for canvas, rows, among_others, drawn in zip(canvases, reading, features, classes, strict=True):
        alone = _evaluated(model, [canvas], [rows])
        if not (torch.equal(alone[0], among_others) and torch.equal(alone[1], drawn)):
            raise BrokenPromiseError(
                "on this machine a generation's tokens may depend on what else is being generated: "
                "a canvas evaluated alone and among others gave features with different bits, or other classes"
            )
        every = model.denoiser.trunk([canvas], [torch.arange(len(canvas)).flip(0)])
        if not torch.equal(every.flip(0)[rows], among_others):
            raise BrokenPromiseError(
                "on this machine a generation's tokens may depend on how far ahead it is guessed: "
                "features of a canvas have different bits when other positions are read too"
            )


def _evaluated(model: Model, canvases: list[Tensor], rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Features [N, F] of the rows that are read, and a class drawn for each [N], by the rows' own positions alone."""
    features = model.denoiser.trunk(canvases, rows)
    revealed = torch.cat([canvas[read] for canvas, read in zip(canvases, rows, strict=True)])
    events = torch.cat(rows)
    zeros, ones = torch.zeros_like(events), torch.ones_like(events, dtype=torch.float64)
    draws = Draws(revealed, seeds=zeros, events=events, temperature=ones, top_k=zeros, top_p=ones)
    codes = model.sub_tokenizer.codes_on(features.device)
    try:
        return features, model.denoiser.draw(features, codes, draws)
    except DrawError as error:  # an exact model gives some random canvases probability zero
        return features, error.classes


def _canvas(model: Model, generator: torch.Generator, length: int) -> Tensor:
    """A canvas of random tokens, half of its sub-tokens masked: int64 [length, l]."""
    ids = torch.randint(model.denoiser.vocabulary_size, (length,), generator=generator)
    digits = model.sub_tokenizer.encode(ids)
    hidden = torch.rand(digits.shape, generator=generator) < 0.5
    return digits.masked_fill(hidden, model.sub_tokenizer.mask_id)


def measured_capacity(model: Model, tokens_per_tick: int) -> Capacity:
    """Time three evaluations of the longest canvas: alone, alone with a wide step, among others.

    Each is done several times in turn, and the fastest counts, so that other processes disturb it less: the cost of one
    more canvas decides how many lanes pay.
    """
    length = model.denoiser.length
    tokens = max(1, length - 1)
    canvases = max(1, min(MOST_CANVASES, min(MOST_TIMED_TOKENS, tokens_per_tick) // length))
    one, *others = samples_to_try(model, tokens, canvases)
    (wide,) = samples_to_try(model, tokens, 1, steps=-(-tokens // MOST_ROWS))
    check_model(model)  # what is done for the first time takes longer
    alone, step, together = _fastest(model, [[one], [wide], [one, *others]])
    rows = len(wide.steps[0].by_position(model.sub_tokenizer.sub_tokens_per_token))
    return Capacity(tokens_per_tick, first_pace(alone, step, together, one.plan.length, canvases, rows))


def _fastest(model: Model, turns: Sequence[Sequence[ActiveSample]]) -> list[float]:
    seconds = [float("inf")] * len(turns)
    begun = time.perf_counter()
    for turn in range(1, MOST_TURNS + 1):
        for i, samples in enumerate(turns):
            started = time.perf_counter()
            evaluate(model, samples)
            seconds[i] = min(seconds[i], time.perf_counter() - started)
        if turn >= LEAST_TURNS and time.perf_counter() - begun > ENOUGH_SECONDS:
            break
    return seconds
