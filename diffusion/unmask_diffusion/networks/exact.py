"""Denoisers whose distribution is known exactly: a joint table and a Markov chain.

With them a sampler can be held to the truth by counting, apart from any network's error: whatever differs from the
model's own distribution is the sampler's (compare "the error of discrete diffusion samplers", arXiv 2602.19619).
Their features are the log-probabilities themselves, so that the head is the identity.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from unmask_kernels import Draws, agrees, draw_from_logits, fixed_tile_linear

from unmask_diffusion.model import check_sub_tokens
from unmask_diffusion.sub_tokens import SubTokenizer


class ExactDenoiser:
    """The shared part of denoisers that know log p(token_i | every revealed digit of the canvas)."""

    def __init__(self, length: int, sub_tokenizer: SubTokenizer) -> None:
        self.length = length
        self.sub_tokenizer = sub_tokenizer

    @property
    def vocabulary_size(self) -> int:
        return self.sub_tokenizer.vocabulary_size

    @property
    def activation_bytes_per_token(self) -> int:
        return 64 * self.vocabulary_size  # consistency, messages and logits, in float64

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """Evaluate canvases; features are float32 log-probabilities [N, C], unnormalised.

        Raises:
            ValueError: a canvas is not as long as the model.
        """
        if any(len(canvas) != self.length for canvas in canvases):
            raise ValueError(f"every canvas must have the model's length, {self.length} tokens")
        digits = torch.cat(list(canvases))
        consistent = agrees(digits, self.sub_tokenizer.codes).unflatten(0, (len(canvases), self.length)).double()
        return self._log_posteriors(consistent, rows).float()

    def head(self, features: Tensor) -> Tensor:
        return features

    def draw(self, features: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        return draw_from_logits(features, codes, draws)

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        """Log p(token_i | all revealed digits), -inf where impossible: int64 [B, L, l] → float32 [B, L, C]."""
        check_sub_tokens(sub_tokens, self.length, self.sub_tokenizer.sub_tokens_per_token, self.sub_tokenizer.base)
        batch, length, _ = sub_tokens.shape
        if batch == 0:
            return torch.zeros(0, length, self.vocabulary_size)
        features = self.trunk(list(sub_tokens), [torch.arange(length)] * batch)
        logits: Tensor = features.unflatten(0, (batch, length))
        return logits

    def _log_posteriors(self, consistent: Tensor, rows: Sequence[Tensor]) -> Tensor:
        """Posteriors of the rows to read, float64 [N, C], from consistent [B, L, C] (0 or 1, float64)."""
        raise NotImplementedError


class TableDenoiser(ExactDenoiser):
    """A joint distribution over a tiny vocabulary, by enumeration."""

    def __init__(self, log_probabilities: Tensor, sub_tokenizer: SubTokenizer) -> None:
        """Keep `log_probabilities` of shape [C] · L; they need not be normalised."""
        super().__init__(log_probabilities.ndim, sub_tokenizer)
        table = log_probabilities.double()
        self.probabilities = (table - table.max()).exp()

    def _log_posteriors(self, consistent: Tensor, rows: Sequence[Tensor]) -> Tensor:
        return torch.cat([self._one_canvas(c, r.tolist()) for c, r in zip(consistent, rows, strict=True)])

    def _one_canvas(self, consistent: Tensor, rows: list[int]) -> Tensor:
        """Sum the table over what one canvas leaves open: [L, C] → [len(rows), C]. Alone, so that its bits are too."""
        left = self.probabilities
        for position in range(self.length):
            shape = [1] * self.length
            shape[position] = -1
            left = left * consistent[position].view(shape)
        marginals = [left.sum([p for p in range(self.length) if p != row]) if self.length > 1 else left for row in rows]
        return torch.stack(marginals).log() if rows else left.new_zeros(0, self.vocabulary_size)


class MarkovDenoiser(ExactDenoiser):
    """A Markov chain x_1 … x_L, given any set of revealed digits, by the forward–backward algorithm."""

    def __init__(self, log_initial: Tensor, log_transition: Tensor, length: int, sub_tokenizer: SubTokenizer) -> None:
        """Keep `log_initial` [C] and `log_transition` [C, C] (row: from, column: to); rows need not be normalised."""
        super().__init__(length, sub_tokenizer)
        self.initial = log_initial.double().softmax(0)
        self.transition = log_transition.double().softmax(1)
        self._backward_weight = self.transition.contiguous()
        self._forward_weight = self.transition.T.contiguous()

    def _log_posteriors(self, consistent: Tensor, rows: Sequence[Tensor]) -> Tensor:
        forward = torch.empty_like(consistent)
        forward[:, 0] = message = _scaled(self.initial * consistent[:, 0])
        for position in range(1, self.length):
            message = _scaled(fixed_tile_linear(message, self._forward_weight) * consistent[:, position])
            forward[:, position] = message
        backward = torch.empty_like(consistent)
        backward[:, -1] = message = torch.ones_like(message)
        for position in range(self.length - 1, 0, -1):
            message = _scaled(fixed_tile_linear(message * consistent[:, position], self._backward_weight))
            backward[:, position - 1] = message
        read = torch.cat([r + self.length * canvas for canvas, r in enumerate(rows)])
        return forward.flatten(0, 1)[read].log() + backward.flatten(0, 1)[read].log()


def _scaled(weights: Tensor) -> Tensor:
    """Divide rows [B, C] by their largest entry, which no order of summation can change; zeros stay zeros."""
    return weights / weights.amax(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
