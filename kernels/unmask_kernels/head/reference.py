"""The head and the draw as one would write them down: all logits in memory."""

from torch import Tensor

from unmask_kernels.categorical.reference import draw_reference


def draw_from_hidden_reference(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    revealed: Tensor,
    codes: Tensor,
    seeds: Tensor,
    events: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
) -> Tensor:
    """Return the class of every row; rows must have a candidate and no NaN. The oracle of every other form.

    Shapes and meaning as for `unmask_kernels.draw_from_hidden`; temperature, top_k and top_p are tensors [N].
    """
    logits = hidden.to(weight.dtype).float() @ weight.float().T
    if bias is not None:
        logits = logits + bias.float()
    return draw_reference(logits, revealed, codes, seeds, events, temperature, top_k, top_p)
