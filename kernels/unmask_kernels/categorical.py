"""The draw of one class for each row from logits: Gumbel-max over the consistent classes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unmask_kernels import dispatch
from unmask_kernels.consistency import Classes, agrees, consistent_classes
from unmask_kernels.draws import Drawn, Draws, Offsets, checked_classes, with_offsets
from unmask_kernels.philox import gumbel_from_words, halves, philox_4x32, random_words
from unmask_kernels.transfer import to_device

Scores = npt.NDArray[np.float64]

# Number of classes for which the CPU makes noise together. Greater buffers are mapped anew each time and do not fit the
# cache (twice as slow), and torch splits 32,768 numbers and more among threads. No result depends on it.
NOISE_BLOCK = 16_000

# Number of logits that a GPU takes through the reference together, which has a dozen numbers of 8 bytes for each.
_REFERENCE_PIECE = 1 << 22

_WEIGHT_ONE = 2.0**40


@torch.no_grad()
def draw(
    logits: Tensor,  # [N, C], any floating dtype
    revealed: Tensor,  # int64 [N, l]; a digit above `codes.max()`, as the mask id is, means masked
    codes: Tensor,  # int64 [C, l], the digits of every class
    seeds: Tensor,  # int64 [N], one for each request
    events: Tensor,  # int64 [N], the number of this draw in its request
    temperature: Tensor | float,  # [N] or one number; 0 = the most probable class (the first of equals), without noise
    *,
    top_k: Tensor | int = 0,  # int64 [N] or one number, 0 = off: keep exactly k classes
    top_p: Tensor | float = 1.0,  # [N] or one number, 1 = off: of these keep the likeliest up to this share
    min_p: Tensor | float | None = None,  # [N] or one number, 0 = off: first drop what is below this share of the best
    offsets: Sequence[Offsets | None] = (),  # N of them, or none: added to the logits first
) -> Tensor:
    """Draw a class for each row from the softmax of logits / temperature over the consistent classes: int64 [N].

    A row's class is a function of that row's arguments alone: not of its neighbours, nor of N. The noise is
    counter-based (Philox 4x32-10, tail to 2**-64); the maths is in this folder's README.

    Raises:
        NoCandidateError: some rows have no class of positive probability that agrees with their digits.
        InvalidLogitsError: some rows have NaN or +inf among the logits of their consistent classes. Both are
            DrawErrors, raised after the other rows were drawn, and carry their classes.
        ValueError: shapes that do not fit, or a temperature that is negative or not finite.
    """
    if logits.ndim != 2 or codes.ndim != 2 or logits.shape[1] != len(codes) or len(codes) == 0:
        raise ValueError(f"logits [N, C] and codes [C, l] don't fit: {list(logits.shape)} and {list(codes.shape)}")
    count, device = len(logits), logits.device
    if revealed.shape != (count, codes.shape[1]):
        raise ValueError(f"revealed must be [{count}, {codes.shape[1]}], not {list(revealed.shape)}")
    if seeds.dtype != torch.int64 or events.dtype != torch.int64:
        raise ValueError(f"seeds and events must be int64, not {seeds.dtype} and {events.dtype}")
    temperature = torch.as_tensor(temperature, dtype=torch.float64, device=device)
    top_k = torch.as_tensor(top_k, dtype=torch.int64, device=device)
    top_p = torch.as_tensor(top_p, dtype=torch.float64, device=device)
    min_p = torch.as_tensor(0.0 if min_p is None else min_p, dtype=torch.float64, device=device)
    if not bool((temperature.isfinite() & (temperature >= 0)).all()):
        raise ValueError(f"temperatures must be finite and not negative: {temperature.tolist()}")
    each_row = {"seeds": seeds, "events": events, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    each_row["min_p"] = min_p
    for name, value in each_row.items():
        if value.ndim and value.shape != (count,):
            raise ValueError(f"{name} must be [{count}], not {list(value.shape)}")
        each_row[name] = value.expand(count)
    if len(offsets) not in (0, count):
        raise ValueError(f"offsets must be {count}, one a row, not {len(offsets)}")
    draws = Draws(revealed, **each_row, offsets=tuple(offsets) if any(offsets) else ())
    return draw_from_logits(logits, codes, draws).to(device)


@torch.no_grad()
def draw_from_logits(logits: Tensor, codes: Tensor, draws: Draws) -> Tensor:
    """Draw as `draw` does, with arguments that are known to fit: int64 [N], in host memory.

    Args:
        logits: [N, C], any floating dtype.
        codes: int64 [C, l], on the logits' device.
        draws: N rows.
    """
    return checked_classes(
        _draw_on_cpu(logits, codes, draws) if dispatch.on_cpu(logits) else draw_on_gpu(logits, codes, draws)
    )


def draw_reference(logits: Tensor, codes: Tensor, draws: Draws) -> Tensor:
    """Return the class of every row, int64 [N], with all noise in memory: the oracle of every other form.

    Every row must have a candidate and no NaN or +inf.
    """
    offset = with_offsets(logits.double(), draws.offsets)
    scores = offset.masked_fill(~agrees(draws.revealed, codes), -torch.inf)
    greedy = draws.temperature == 0
    # Subtracting the maximum first keeps the sum with the noise free of rounding where it matters.
    scaled = (scores - scores.amax(1, keepdim=True)) / draws.temperature.double().where(~greedy, 1)[:, None]
    scaled = scaled.masked_fill(~keep_likely(scaled, draws.top_k, draws.top_p, draws.min_p), -torch.inf)
    (event_low, event_high), key = halves(draws.events[:, None]), halves(draws.seeds[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)[None]
    words = philox_4x32((classes, event_low, event_high, torch.zeros_like(classes)), key)
    noisy = scaled + gumbel_from_words(words[0], words[1])
    return torch.where(greedy, scores.argmax(1), noisy.argmax(1))


def keep_likely(scores: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor | None = None) -> Tensor:
    """Say which classes min_p, then top_k and then top_p leave: bool [N, K], at least one in a row.

    min_p drops the classes whose probability is below min_p times the likeliest's. top_k keeps exactly k classes (of
    equals the lower index first). top_p keeps the likeliest of these until their share of the softmax over them reaches
    top_p, the class that crosses it included.

    The shares are summed as integers, in units of 2**-40 of the likeliest class: integer sums are the same in
    every order, so no number of rows, padding or device can move a class across the border.

    Args:
        scores: float64 [N, K], unnormalised log-probabilities after temperature, at most 0, a 0 in every row;
            -inf for classes that are out already.
        top_k: int64 [N], 0 = off.
        top_p: [N], 1 = off.
        min_p: [N], 0 = off; None: off in all rows.
    """
    if min_p is not None:
        likely = scores >= min_p.to(torch.float64).log()[:, None]
        return likely & keep_likely(scores.masked_fill(~likely, -torch.inf), top_k, top_p)
    ordered, order = scores.sort(dim=1, descending=True, stable=True)
    rank = torch.arange(scores.shape[1], device=scores.device)
    in_k = rank < torch.where(top_k > 0, top_k, scores.shape[1])[:, None]
    weight = (ordered.exp() * _WEIGHT_ONE).round().to(torch.int64) * in_k
    before = weight.cumsum(1) - weight
    share = top_p.to(torch.float64)[:, None]
    in_p = (before < share * weight.sum(1, keepdim=True)) | (share >= 1) | (rank == 0)
    return torch.zeros_like(in_k).scatter_(1, order, in_k & in_p)


class RowLogits(NamedTuple):
    """The consistent classes of a row, ascending, and their logits."""

    row: int
    classes: Classes  # [K]
    logits: npt.NDArray[np.floating]  # [K]


class _RowScores(NamedTuple):
    """The classes of a row, or some of them, that need noise, and their scores."""

    row: int
    classes: Classes  # [K]
    scores: Scores  # [K], (logit - highest) / temperature


def _draw_on_cpu(logits: Tensor, codes: Tensor, draws: Draws) -> Drawn:
    consistent = consistent_classes(codes)
    # NumPy has no bfloat16
    values = logits.numpy() if logits.dtype in (torch.float32, torch.float64) else logits.float().numpy()
    found = ((row, consistent.of(digits)) for row, digits in enumerate(draws.revealed.tolist()))
    if draws.offsets:
        rows = (_offset_row(row, classes, values[row], draws.offsets[row]) for row, classes in found)
    else:
        rows = (RowLogits(row, classes, values[row, classes]) for row, classes in found)
    return draw_rows(rows, draws)


def _offset_row(row: int, classes: Classes, values: npt.NDArray[np.floating], offsets: Offsets | None) -> RowLogits:
    """A row of which the logits of all classes, [C], are in memory."""
    if offsets is None:
        return RowLogits(row, classes, values[classes])
    classes = offsets.left_of(classes)
    return RowLogits(row, classes, offsets.added_to(values[classes], classes))


def draw_rows(rows: Iterable[RowLogits], draws: Draws) -> Drawn:
    """Draw a class for every row on a CPU; the rows come in any order, each once.

    Only the classes that can still win get noise. This is NumPy, which stays on the calling thread and whose calls cost
    a microsecond: a row has a few candidates or a few thousand, too little to wait for another core.
    """
    drawn: Classes = np.full(len(draws), -1)
    highest, best = np.full((2, len(draws)), -np.inf)  # the highest logit, and the highest score with noise so far
    temperatures, filtered = draws.temperature.tolist(), draws.filtered.tolist()
    block: list[_RowScores] = []  # rows put together, and long ones cut up, to at most NOISE_BLOCK classes
    room = NOISE_BLOCK
    # `highest` shows NaN and infinities; a score may overflow to -inf where the temperature is tiny
    with np.errstate(invalid="ignore", over="ignore"):
        for row, classes, logits in rows:
            if not len(classes):
                continue
            highest[row] = logits.max()
            if not np.isfinite(highest[row]):
                continue
            if temperatures[row] == 0:
                drawn[row] = classes[logits.argmax()]
                continue
            # the likeliest class has score 0, where a sum with noise is exact
            scores = np.subtract(logits, highest[row], dtype=np.float64) / temperatures[row]
            if filtered[row]:
                one = draws.take(torch.tensor([row]))
                kept = keep_likely(torch.from_numpy(scores)[None], one.top_k, one.top_p, one.min_p)[0].numpy()
                classes, scores = classes[kept], scores[kept]
            for start in range(0, len(classes), NOISE_BLOCK):
                part = _RowScores(row, classes[start : start + NOISE_BLOCK], scores[start : start + NOISE_BLOCK])
                if len(part.classes) > room:
                    _add_noise(block, draws, drawn, best)
                    block, room = [], NOISE_BLOCK
                block.append(part)
                room -= len(part.classes)
        if block:
            _add_noise(block, draws, drawn, best)
    return Drawn(torch.from_numpy(drawn), torch.from_numpy(highest))


def _add_noise(block: list[_RowScores], draws: Draws, drawn: Classes, best: Scores) -> None:
    """Add noise to the scores of a block and keep each row's maximum."""
    rows = torch.tensor([part.row for part in block])
    if len(block) > 1:
        rows = rows.repeat_interleave(torch.tensor([len(part.classes) for part in block]))
    classes = torch.from_numpy(np.concatenate([part.classes for part in block]))
    words = random_words(draws.seeds[rows], draws.events[rows], classes)
    noise = gumbel_from_words(*words).numpy()
    start = 0
    for row, some, scores in block:
        noisy = scores + noise[start : start + len(some)]
        winner = noisy.argmax()
        if noisy[winner] > best[row]:
            best[row], drawn[row] = noisy[winner], some[winner]
        start += len(some)


def draw_on_gpu(logits: Tensor, codes: Tensor, draws: Draws) -> Drawn:
    """Draw a class for every row of logits [N, C].

    Rows with top_k or top_p, and all rows of float64 logits, go through the reference in float64: which form computes
    a row depends on that row alone.
    """
    filtered = draws.filtered.nonzero()[:, 0]
    logits, draws = with_offsets(logits, draws.offsets), replace(draws, offsets=()).to(logits.device)
    if not dispatch.by_triton(logits):
        return _draw_by_reference(logits, codes, draws)
    from unmask_kernels.triton.categorical import draw_in_tiles  # only CUDA builds of torch bring Triton

    drawn = draw_in_tiles(logits, codes, draws)
    if len(filtered):
        (filtered,) = to_device([filtered], logits.device)
        drawn.classes[filtered] = _draw_by_reference(logits[filtered], codes, draws.take(filtered)).classes
    return drawn


def _draw_by_reference(logits: Tensor, codes: Tensor, draws: Draws) -> Drawn:
    pieces = torch.arange(len(draws), device=logits.device).split(max(1, _REFERENCE_PIECE // len(codes)))
    classes = torch.cat([draw_reference(logits[rows], codes, draws.take(rows)) for rows in pieces])
    consistent = (logits[rows].masked_fill(~agrees(draws.revealed[rows], codes), -torch.inf) for rows in pieces)
    highest = torch.cat([some.amax(1) for some in consistent])
    return Drawn(classes.masked_fill(~highest.isfinite(), -1), highest)
