"""Whether this machine keeps the promise that a sample's arithmetic does not depend on its company.

It is a property of libraries, not of arithmetic: they change with the processor, the threads and the version.
"""

import torch
from torch import Tensor
from unmask_diffusion import Model

COMPANY = 7


class BrokenPromiseError(RuntimeError):
    """The same canvas has other bits alone than among others on this machine."""


@torch.inference_mode()
def self_test(model: Model) -> None:
    """Evaluate a canvas alone and among others, and compare the bits of its logits.

    Raises:
        BrokenPromiseError: they differ.
    """
    generator = torch.Generator().manual_seed(0)
    canvases = [_canvas(model, generator, share) for share in torch.linspace(0, 1, COMPANY).tolist()]
    reading = [torch.tensor([len(canvas) // 2]) for canvas in canvases]
    together = _logits(model, canvases, reading)
    for i, (canvas, row) in enumerate(zip(canvases, reading, strict=True)):
        alone = _logits(model, [canvas], [row])
        if not torch.equal(alone[0], together[i]):
            raise BrokenPromiseError(
                "on this machine a generation's tokens may depend on what else is being generated: "
                "a canvas evaluated alone and among others gave logits with different bits"
            )


def _logits(model: Model, canvases: list[Tensor], rows: list[Tensor]) -> Tensor:
    return model.denoiser.head(model.denoiser.trunk(canvases, rows))


def _canvas(model: Model, generator: torch.Generator, masked_share: float) -> Tensor:
    """A canvas of random tokens, [length, l], some of its sub-tokens masked; shorter ones where the model has them."""
    longest = min(model.denoiser.length, 128)
    length = model.denoiser.length if model.full_canvas else max(1, int(longest * (0.3 + 0.7 * masked_share)))
    ids = torch.randint(model.denoiser.vocabulary_size, (length,), generator=generator)
    digits = model.sub_tokenizer.encode(ids)
    hidden = torch.rand(digits.shape, generator=generator) < masked_share
    return digits.masked_fill(hidden, model.sub_tokenizer.mask_id)
