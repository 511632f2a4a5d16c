"""The two parameterizations of the network's output: one logit a class, or one logit a digit.

"Beyond Masked and Unmasked…" (2025), section 3 and Figure 4, compares them. **Joint**: C logits. **Independent**: l · b
logits, one for each value of each digit; the logit of a class is the sum of its digits' logits. All other code uses
joint logits, so that it does not depend on the head.

Where b^l = C every tuple of digits is a class, and the softmax over (consistent) classes factorises exactly into the
softmaxes of the (masked) digits: the digits of a token are independent given the canvas. Where b^l > C the tuples that
name no class are left out, and renormalising over the others couples the digits.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from unmask_kernels import (
    DrawError,
    Draws,
    InvalidLogitsError,
    NoCandidateError,
    draw_from_hidden,
    draw_from_logits,
    fixed_tile_linear,
)

Parameterization = Literal["joint", "independent"]

# rows of the independent head whose joint logits are in memory together
ROWS_AT_ONCE = 64


class JointHead(nn.Linear):
    """One logit a class: weight [C, hidden], bias [C]."""

    def joint_logits(self, features: Tensor) -> Tensor:
        """Features [N, hidden] → joint logits, float32 [N, C]."""
        return _linear(features, self)

    def draw(self, features: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        """Draw a class for every row; only the weights of consistent classes are read where these are few."""
        return draw_from_hidden(features, self.weight, self.bias, codes, draws)


class IndependentHead(nn.Linear):
    """One logit a digit: weight [l · b, hidden], bias [l · b], the b values of the first digit first."""

    codes: Tensor  # int64 [C, l], the digits of every class; a buffer that is not in the state dict

    def __init__(self, hidden_size: int, codes: Tensor, base: int) -> None:
        super().__init__(hidden_size, codes.shape[1] * base)
        self.register_buffer("codes", codes, persistent=False)

    def joint_logits(self, features: Tensor) -> Tensor:
        """Features [N, hidden] → joint logits, float32 [N, C]: the digits' logits, summed from the first to the last.

        A sum of l numbers in a fixed order: a row's bits don't depend on the other rows.
        """
        places = self.codes.unbind(1)
        first, *others = _linear(features, self).unflatten(1, (len(places), -1)).unbind(1)
        logits: Tensor = first.index_select(1, places[0])
        for digits, place in zip(others, places[1:], strict=True):
            logits = logits + digits.index_select(1, place)
        return logits

    def draw(self, features: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        """Draw a class for every row; the joint logits of at most ROWS_AT_ONCE rows are in memory."""
        classes: list[Tensor] = []
        no_candidate: list[int] = []
        invalid: list[int] = []
        for first in range(0, len(features), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            try:
                classes.append(draw_from_logits(self.joint_logits(features[rows]), codes, draws.take(rows)))
            except DrawError as error:
                classes.append(error.classes)
                no_candidate += [first + row for row in error.no_candidate]
                invalid += [first + row for row in error.invalid]
        drawn = torch.cat(classes) if classes else torch.zeros(0, dtype=torch.int64)
        if no_candidate or invalid:
            raise (InvalidLogitsError if invalid else NoCandidateError)(no_candidate, invalid, drawn)
        return drawn


def _linear(features: Tensor, head: nn.Linear) -> Tensor:
    """The head's outputs, float32 [N, outputs]; a row's bits don't depend on the number of rows."""
    return fixed_tile_linear(features.to(head.weight.dtype), head.weight, head.bias).float()
