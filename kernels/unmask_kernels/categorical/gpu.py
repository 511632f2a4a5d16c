"""The draw on a GPU: Triton's kernels, and the plain form for what they don't do."""

import torch
from torch import Tensor

from unmask_kernels import dispatch
from unmask_kernels.categorical.draws import Draws
from unmask_kernels.categorical.reference import draw_reference
from unmask_kernels.consistency import agrees

# Logits that go through the plain form together, which has a dozen numbers of 8 bytes in memory for each.
_PIECE = 1 << 22


def draw_on_gpu(logits: Tensor, codes: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Draw a class for every row of logits [N, C], N > 0.

    Rows with top_k or top_p, and all rows of float64 logits, go through the plain form in float64: which way a row
    takes is its own matter.

    Returns:
        classes, int64 [N], and the highest consistent logit of each row, floating [N]: where this is not finite
        the class is -1.
    """
    if not dispatch.by_triton(logits):
        return _draw_plainly(logits, codes, draws)
    from unmask_kernels.categorical.triton import draw_in_tiles  # Triton is where GPUs are

    drawn, highest = draw_in_tiles(logits, draws.revealed, codes, draws.seeds, draws.events, draws.temperature)
    # This waits for the kernels, as looking at `highest` would: without filters it takes no time of the GPU's.
    filtered = draws.filtered.nonzero()[:, 0]
    if len(filtered):
        drawn[filtered], _ = _draw_plainly(logits[filtered], codes, draws.take(filtered))
    return drawn, highest


def _draw_plainly(logits: Tensor, codes: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    pieces = torch.arange(len(draws), device=logits.device).split(max(1, _PIECE // len(codes)))
    outcomes = [_draw_piece(logits[rows], codes, draws.take(rows)) for rows in pieces]
    classes, highest = (torch.cat(each) for each in zip(*outcomes, strict=True))
    return classes.masked_fill(~highest.isfinite(), -1), highest


def _draw_piece(logits: Tensor, codes: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    classes = draw_reference(
        logits,
        draws.revealed,
        codes,
        draws.seeds,
        draws.events,
        draws.temperature,
        draws.top_k,
        draws.top_p,
    )
    return classes, logits.masked_fill(~agrees(draws.revealed, codes), -torch.inf).amax(1)
