"""The fully masked canvas: what every request without given tokens evaluates first, and always the same."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from unmask_diffusion.denoiser import Denoiser, DenoiserAround

# of all lengths together; the features of one canvas of official size are 3 MiB
MOST_BYTES = 64 << 20


class RememberBlankCanvas(DenoiserAround):
    """A denoiser that evaluates the fully masked canvas of a length once.

    Its weights must stay as they are. Features are those of the inner denoiser, bit for bit.
    """

    def __init__(self, inner: Denoiser, mask_id: int, most_bytes: int = MOST_BYTES) -> None:
        super().__init__(inner)
        self._mask_id = mask_id
        self._most_bytes = most_bytes
        self._features: OrderedDict[int, Tensor] = OrderedDict()

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """See `Denoiser.trunk`."""
        blank = [bool((canvas == self._mask_id).all()) for canvas in canvases]
        if not any(blank):
            return self.inner.trunk(canvases, rows)
        parts = [
            self._of_blank(canvas)[asked] if known else None
            for canvas, asked, known in zip(canvases, rows, blank, strict=True)
        ]
        others = [i for i, known in enumerate(blank) if not known]
        if others:
            features = self.inner.trunk([canvases[i] for i in others], [rows[i] for i in others])
            for i, part in zip(others, features.split([len(rows[i]) for i in others]), strict=True):
                parts[i] = part
        return torch.cat([part for part in parts if part is not None])

    def _of_blank(self, canvas: Tensor) -> Tensor:
        """The features of every row of a fully masked canvas, [L, F]."""
        length = len(canvas)
        if length not in self._features:
            self._features[length] = self.inner.trunk([canvas], [torch.arange(length)])
        self._features.move_to_end(length)
        while len(self._features) > 1 and sum(each.nbytes for each in self._features.values()) > self._most_bytes:
            self._features.popitem(last=False)
        return self._features[length]
