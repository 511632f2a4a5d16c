"""Clocks around a model's parts, from outside: nothing that is measured knows of them."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar
from unittest.mock import patch

from tokenizers import Tokenizer
from torch import Tensor
from unmask_diffusion import Denoiser, Model, SubTokenizer
from unmask_kernels import draw

P = ParamSpec("P")
R = TypeVar("R")


class Clock:
    """Adds up seconds by name."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timed(self, name: str, function: Callable[P, R]) -> Callable[P, R]:
        """The same function, its time added to `seconds[name]`."""

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            begun = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - begun

        return call


@dataclass(frozen=True)
class TimedDenoiser:
    """A denoiser whose trunk and head are timed. Satisfies `unmask_diffusion.Denoiser`."""

    denoiser: Denoiser
    clock: Clock

    @property
    def length(self) -> int:
        """The longest canvas, in tokens."""
        return self.denoiser.length

    @property
    def vocabulary_size(self) -> int:
        """The number of classes C."""
        return self.denoiser.vocabulary_size

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """See `Denoiser.trunk`."""
        return self.clock.timed("trunk", self.denoiser.trunk)(canvases, rows)

    def head(self, features: Tensor) -> Tensor:
        """See `Denoiser.head`."""
        return self.clock.timed("head", self.denoiser.head)(features)

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        """See `Denoiser.joint_logits`."""
        return self.denoiser.joint_logits(sub_tokens)


@dataclass(frozen=True)
class TimedModel:
    """A model with clocks. Satisfies `unmask_diffusion.Model`."""

    denoiser: TimedDenoiser
    sub_tokenizer: SubTokenizer
    tokenizer: Tokenizer | None
    end_token_id: int | None
    full_canvas: bool


@contextmanager
def clocks_around(model: Model) -> Iterator[tuple[TimedModel, Clock]]:
    """Time the trunk and the head of a model and the sampler's draw for as long as this lasts."""
    clock = Clock()
    timed = TimedModel(
        TimedDenoiser(model.denoiser, clock),
        model.sub_tokenizer,
        model.tokenizer,
        model.end_token_id,
        model.full_canvas,
    )
    with patch("unmask_diffusion.sampler.draw", clock.timed("draw", draw)):
        yield timed, clock
