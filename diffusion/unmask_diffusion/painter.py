"""A picture is a canvas with a way to be painted: which pixel a token stands for, and which colour it has.

Position (row · width + column) · channels + channel. A token is an entry of a palette (1 channel), or some of the bits
of a pixel's bytes, the most significant first: a byte of grey (1 channel of 256 classes), of red, green and blue (3 of
256), or twelve bits of their 24 (2 of 4096, MDM-Prime's super-tokens).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unmask_diffusion.sub_tokens import SubTokenizer

Colour = tuple[int, int, int, int]  # red, green, blue, alpha: bytes of sRGB, not premultiplied

# (channels, classes) of pictures without a palette
BYTES = ((1, 256), (3, 256), (2, 4096))
OPAQUE = 255

# linear sRGB → the cone responses of OKLab, and these → lightness and two opponent colours
# (https://bottosson.github.io/posts/oklab/)
_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_OPPONENTS = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


@dataclass(frozen=True, eq=False)
class Painter:
    """Paints the canvases of an image model, and finds the tokens of a picture."""

    height: int  # pixels
    width: int
    channels: int  # tokens of a pixel
    palette: Sequence[Colour] | None  # the colour of each class; None: bytes
    sub_tokenizer: SubTokenizer

    @property
    def length(self) -> int:
        """Tokens of a canvas."""
        return self.height * self.width * self.channels

    def paint(self, tokens: Tensor | Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        """Paint canvases; a pixel that is partly revealed has the mean of the colours that its digits leave.

        The mean is taken of the bytes, alpha too, and rounded, halves up: a client that knows the codes paints alike.

        Args:
            tokens: ids, int64 [..., L], or digits [..., L, l] with the mask id where one is not known.

        Returns:
            uint8 [..., H, W, 4]: red, green, blue and alpha.

        Raises:
            ValueError: the shape is wrong, or an id or a digit out of range.
        """
        digits = torch.as_tensor(tokens)
        length, digits_a_token = self.length, self.sub_tokenizer.sub_tokens_per_token
        if tuple(digits.shape[-2:]) != (length, digits_a_token):
            if digits.ndim == 0 or digits.shape[-1] != length:
                shapes = f"ids [..., {length}] or digits [..., {length}, {digits_a_token}]"
                raise ValueError(f"a canvas of this model is {shapes}, not {list(digits.shape)}")
            digits = self.sub_tokenizer.encode(digits)
        if digits.numel() and (int(digits.min()) < 0 or int(digits.max()) > self.sub_tokenizer.mask_id):
            raise ValueError(f"digits must lie in 0 … {self.sub_tokenizer.mask_id}, the last being the mask id")
        places = (digits * self._powers).sum(-1).view(*digits.shape[:-2], -1, self.channels)
        colours = self._means[torch.arange(self.channels), places].sum(-2) + self._base
        return (colours + 0.5).floor().to(torch.uint8).view(*colours.shape[:-2], self.height, self.width, 4)

    def tokens_of(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens of a picture, int64 [L], from its pixels, uint8 [H, W, 4].

        A colour that is none of the palette's becomes the nearest in OKLab, alpha being a fourth coordinate that the
        other three are multiplied by. Bytes have no alpha: it is dropped.

        Also tells which pixels have changed, bool [H, W].
        """
        flat = pixels.reshape(-1, 4)
        if self.palette is None:
            tokens = self._tokens_of_bytes(flat.long())
        else:
            tokens = torch.cdist(_oklab(flat), _oklab(self._colours.to(torch.uint8))).argmin(-1)
        changed = (self.paint(tokens) != pixels).any(-1)
        return tokens, changed

    def _tokens_of_bytes(self, flat: Tensor) -> Tensor:
        red, green, blue, _ = flat.unbind(-1)
        if self.channels == 3:
            return flat[:, :3].reshape(-1)
        if self.channels == 2:
            return torch.stack([red << 4 | green >> 4, (green & 15) << 8 | blue], -1).view(-1)
        return (0.2126 * red + 0.7152 * green + 0.0722 * blue).round().long()  # luma of Rec. 709

    @cached_property
    def _base(self) -> Tensor:
        """What every pixel has before its tokens add to it."""
        return torch.tensor([0, 0, 0, 0 if self.palette is not None else OPAQUE])

    @cached_property
    def _colours(self) -> Tensor:
        return torch.tensor(self.palette)

    @cached_property
    def _contributions(self) -> Tensor:
        """What a class of each channel adds to its pixel's colour: [channels, C, 4]."""
        if self.palette is not None:
            return self._colours[None]
        classes = torch.arange(self.sub_tokenizer.vocabulary_size)
        nothing = torch.zeros_like(classes)
        if self.channels == 1:
            return torch.stack([classes, classes, classes, nothing], -1)[None]
        if self.channels == 2:
            high = torch.stack([classes >> 4, (classes & 15) << 4, nothing, nothing], -1)
            return torch.stack([high, torch.stack([nothing, classes >> 8, classes & 255, nothing], -1)])
        return classes[None, :, None] * torch.eye(3, 4, dtype=torch.int64)[:, None]

    @cached_property
    def _means(self) -> Tensor:
        """The mean contribution of the classes that agree with digits, of which some are masked.

        float64 [channels, (b+1)^l, 4]; no class, no colour.
        """
        base, digits = self.sub_tokenizer.base, self.sub_tokenizer.sub_tokens_per_token
        numbers = (self.sub_tokenizer.codes * torch.tensor([base**j for j in reversed(range(digits))])).sum(-1)
        ones = torch.ones(self.channels, self.sub_tokenizer.vocabulary_size, 1)
        sums = torch.zeros(self.channels, base**digits, 5, dtype=torch.float64)
        sums[:, numbers] = torch.cat([self._contributions, ones], -1).double()
        sums = sums.view(self.channels, *[base] * digits, 5)
        for axis in range(1, digits + 1):
            sums = torch.cat([sums, sums.sum(axis, keepdim=True)], axis)
        sums = sums.view(self.channels, -1, 5)
        return sums[..., :4] / sums[..., 4:].clamp(min=1)

    @cached_property
    def _powers(self) -> Tensor:
        digits, values = self.sub_tokenizer.sub_tokens_per_token, self.sub_tokenizer.base + 1
        return torch.tensor([values**j for j in reversed(range(digits))])


def _oklab(colours: Tensor) -> Tensor:
    """Colours, uint8 [n, 4], in OKLab with alpha: float64 [n, 4]; lightness and colour are multiplied by alpha."""
    values = colours.double() / 255
    rgb, alpha = values[:, :3], values[:, 3:]
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones, opponents = (torch.tensor(each, dtype=torch.float64) for each in (_CONES, _OPPONENTS))
    lab = (linear @ cones.T).clamp(min=0) ** (1 / 3) @ opponents.T
    return torch.cat([lab * alpha, alpha], -1)
