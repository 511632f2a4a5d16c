"""The draw as one would write it down: every class, all noise in memory."""

import torch
from torch import Tensor

from unmask_kernels.categorical.filters import keep_likely
from unmask_kernels.categorical.noise import gumbel_from_words
from unmask_kernels.consistency import agrees
from unmask_kernels.philox import philox_4x32
from unmask_kernels.philox.reference import halves


def draw_reference(
    logits: Tensor,
    revealed: Tensor,
    codes: Tensor,
    seeds: Tensor,
    events: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
) -> Tensor:
    """Return the class of every row; rows must have a candidate and no NaN. The oracle of every other form.

    Shapes and meaning as for `unmask_kernels.draw`; temperature, top_k and top_p are tensors [N].
    """
    scores = logits.double().masked_fill(~agrees(revealed, codes), -torch.inf)
    greedy = temperature == 0
    # Subtracting the maximum first keeps the sum with the noise free of rounding where it matters.
    scaled = (scores - scores.amax(1, keepdim=True)) / temperature.double().where(~greedy, 1)[:, None]
    scaled = scaled.masked_fill(~keep_likely(scaled, top_k, top_p), -torch.inf)
    (event_low, event_high), (key_0, key_1) = halves(events[:, None]), halves(seeds[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)[None]
    words = philox_4x32((classes, event_low, event_high, torch.zeros_like(classes)), (key_0, key_1))
    noisy = scaled + gumbel_from_words(words[0], words[1])
    return torch.where(greedy, scores.argmax(1), noisy.argmax(1))
