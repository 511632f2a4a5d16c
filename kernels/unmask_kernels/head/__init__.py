"""Hidden rows → drawn classes: the head's product and the draw in one, logits never all in memory."""

import torch
from torch import Tensor

from unmask_kernels import dispatch
from unmask_kernels.categorical.draws import checked_draws, checked_outcome
from unmask_kernels.head.cpu import draw_on_cpu


@torch.no_grad()
def draw_from_hidden(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    revealed: Tensor,
    codes: Tensor,
    seeds: Tensor,
    events: Tensor,
    temperature: Tensor | float,
    *,
    top_k: Tensor | int | None = None,
    top_p: Tensor | float | None = None,
) -> Tensor:
    """Draw one class a row from the softmax of the head's logits: `draw(hidden @ weight.T + bias, …)`.

    Rows with revealed digits read only the rows of the weight that belong to consistent classes, others all of it;
    the maths is in this folder's README. A row's class is a function of that row's arguments alone, bit for bit.

    Args:
        hidden: [N, H], taken to the weight's dtype first.
        weight: [C, H]; products are summed in float32.
        bias: [C] or None.
        revealed: int64 [N, l]; this and what follows as for `unmask_kernels.draw`.
        codes: int64 [C, l].
        seeds: int64 [N].
        events: int64 [N].
        temperature: [N] or one number.
        top_k: int64 [N] or one number.
        top_p: [N] or one number.

    Returns:
        int64 [N], class ids.

    Raises:
        NoCandidateError: as for `unmask_kernels.draw`.
        InvalidLogitsError: likewise.
        ValueError: shapes that don't fit, or a temperature that is negative or not finite.
    """
    if hidden.ndim != 2 or weight.shape != (len(codes), hidden.shape[1]) or len(codes) == 0:
        msg = (
            f"hidden [N, H] and weight [C, H] don't fit {len(codes)} codes: {list(hidden.shape)}, {list(weight.shape)}"
        )
        raise ValueError(msg)
    draws = checked_draws(len(hidden), hidden.device, revealed, codes, seeds, events, temperature, top_k, top_p)
    if dispatch.on_cpu(hidden):
        return checked_outcome(*draw_on_cpu(hidden, weight, bias, codes, draws))
    from unmask_kernels.head.triton import draw_on_gpu  # Triton is where GPUs are

    return checked_outcome(*draw_on_gpu(hidden, weight, bias, codes, draws))


__all__ = ["draw_from_hidden"]
