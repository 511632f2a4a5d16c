"""Protocols that a model satisfies: for planning, for sampling, and its network alone."""

from collections.abc import Sequence
from typing import Literal, Protocol

from tokenizers import Tokenizer
from torch import Tensor
from unmask_kernels import Draws

from unmask_diffusion.painter import Painter
from unmask_diffusion.sub_tokens import SubTokenizer

# never; where the prompt is empty; before every prompt that is a text; or before a suffix too
AddBos = Literal["never", "empty_prompt", "prompt", "prompt_and_suffix"]


class Extent(Protocol):
    """Sizes of a network that planning needs."""

    @property
    def length(self) -> int:
        """The longest canvas, in tokens."""

    @property
    def vocabulary_size(self) -> int:
        """The number of classes C."""


class Denoiser(Extent, Protocol):
    """A network in two parts: a trunk (canvases → features) and a head (features → joint logits, or draws)."""

    @property
    def activation_bytes_per_token(self) -> int:
        """Upper bound of the memory that an evaluation takes for each token of its canvases."""

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """Evaluate canvases together. A row's bits do not depend on the other rows and canvases.

        Args:
            canvases: one int64 tensor [L_i, l] of digits a canvas, the mask id where a digit is not known.
            rows: for each canvas the positions to read, int64.

        Returns:
            Features [N, F], N = the number of positions to read, in the order of the canvases.
        """

    def head(self, features: Tensor) -> Tensor:
        """Turn features [N, F] into joint logits, float32 [N, C]; -inf for classes that are never drawn."""

    def draw(self, features: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        """Draw a class for every row of features from the head's logits, which need not all be in memory.

        Args:
            features: [N, F], from `trunk`.
            codes: int64 [C, l], the digits of every class, on the features' device.
            draws: N rows, in host memory: it is the network that moves them.

        Returns:
            int64 [N], in host memory; errors are those of `unmask_kernels.draw` at `head(features)`.
        """

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        """The model's own logits, unfiltered: int64 [B, L, l] → float32 [B, L, C]."""


class Outline(Protocol):
    """What planning, and reading a log, need of a model: no weights."""

    @property
    def denoiser(self) -> Extent:
        """Sizes of the network."""

    @property
    def sub_tokenizer(self) -> SubTokenizer:
        """The table of codes."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Text ↔ ids; None: ids only."""

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """The tokens that end a text; none, if the model has none."""

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text, if the model has one."""

    @property
    def add_bos(self) -> AddBos:
        """Where `bos_token_id` is put before texts that do not begin with it."""

    @property
    def carry_over(self) -> bool:
        """Whether the model was trained with the carry-over filter; the sampler always has it."""

    @property
    def full_canvas(self) -> bool:
        """Whether the network always sees its whole length; positions behind the request stay masked."""

    @property
    def clock(self) -> int:
        """The `sampler.clock` of requests that have none."""

    @property
    def image(self) -> Painter | None:
        """How canvases are painted; None where they are no pictures."""


class Model(Outline, Protocol):
    """What sampling needs of a model; a bundle is one."""

    @property
    def denoiser(self) -> Denoiser:
        """The network, or a distribution that is known exactly."""


def check_sub_tokens(sub_tokens: Tensor, length: int, digits_a_token: int, base: int) -> None:
    """Check sub-tokens, int64 [B, L, l], against a model's sizes.

    Raises:
        ValueError: the shape is wrong, the canvas too long, or a digit above the mask id.
    """
    if sub_tokens.ndim != 3 or sub_tokens.shape[2] != digits_a_token or not 1 <= sub_tokens.shape[1] <= length:
        raise ValueError(
            f"sub_tokens must be [B, L, {digits_a_token}] with L at most {length} tokens, not {list(sub_tokens.shape)}"
        )
    if sub_tokens.numel() and (int(sub_tokens.min()) < 0 or int(sub_tokens.max()) > base):
        raise ValueError(f"sub_tokens must lie in 0 … {base}, the last being the mask id")
