"""The network of MDM-Prime's image models: a U-Net over pixels, whose features are the joint logits themselves.

A picture of H x W pixels with c channels has L = H · W · c tokens; position = (row · W + column) · c + channel. The
embeddings of a pixel's c · l digits, one behind the other, are the first feature map: no convolution comes before the
U-Net ("Beyond Masked and Unmasked…", 2025, section 4.2; the design is that of "Diffusion Models Beat GANs…", 2021).
The official network zeroes and ignores the time, so a block's scale and shift are constants and are folded into its
second norm: what is left has no condition.

Each canvas is evaluated alone, however many there are. A convolution picks its form, and with it the order of its
sums, by the whole shape of its input: one canvas has other bits than two, and then a sample's tokens would depend on
its neighbours. Nothing is lost on a CPU, where one canvas of official size (79 GFLOP) fills all cores, and the feature
maps of one canvas are all that is in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unmask_kernels import CPU_HAS_BFLOAT16, Draws, attention, draw_from_logits, to_device

from unmask_diffusion.model import check_sub_tokens

GROUPS = 32
GROUP_NORM_EPSILON = 1e-5
# The widest feature maps, as many as are alive at once: the concatenation, its norm, and copies in a convolution.
MAPS_AT_ONCE = 6


@dataclass(frozen=True)
class UNetShape:
    """The sizes that determine the network's parameters."""

    height: int  # pixels; divisible by 2 ** (levels - 1), as the width is
    width: int
    channels: int  # tokens of a pixel, c
    vocabulary_size: int  # classes C
    sub_tokens_per_token: int  # l
    base: int  # b; the table of embeddings has b + 1 rows, the last for the mask
    widths: tuple[int, ...]  # feature maps of each level, from the full resolution down; each level halves it
    blocks: int  # residual blocks of a level on the way down; on the way up there is one more
    attention: tuple[bool, ...]  # for each level whether attention follows every block
    head_channels: int  # feature maps of an attention head

    def __post_init__(self) -> None:
        digits, halvings = self.channels * self.sub_tokens_per_token, 2 ** (len(self.widths) - 1)
        if len(self.attention) != len(self.widths) or not self.widths:
            raise ValueError(f"attention has {len(self.attention)} entries, widths {len(self.widths)}: one a level")
        if self.height % halvings or self.width % halvings:
            raise ValueError(f"{self.height} x {self.width} pixels cannot be halved {len(self.widths) - 1} times")
        if self.widths[0] % digits:
            raise ValueError(f"width {self.widths[0]} is not divisible by the {digits} digits of a pixel")
        for width in self.widths:
            if width % GROUPS:
                raise ValueError(f"width {width} is not divisible by the norms' {GROUPS} groups")
        for width in (self.widths[-1], *(w for w, has in zip(self.widths, self.attention, strict=True) if has)):
            if width % self.head_channels:
                raise ValueError(f"width {width} is not divisible by head_channels {self.head_channels}")

    @property
    def length(self) -> int:
        """Tokens of a picture, L."""
        return self.height * self.width * self.channels

    @property
    def pixels(self) -> list[int]:
        """Pixels of each level's feature maps."""
        return [self.height * self.width >> 2 * level for level in range(len(self.widths))]

    @property
    def kept(self) -> list[int]:
        """The widths of the maps that the way down keeps: the embedding, each block's output, each pooled map."""
        pooled = [below for below, _ in pairwise(self.widths)]
        firsts = zip([self.widths[0], *pooled], self.widths, strict=True)
        return [*chain.from_iterable([first, *[width] * self.blocks] for first, width in firsts)]

    @property
    def inputs_down(self) -> list[list[int]]:
        """The input widths of the blocks on the way down, level by level."""
        before = [self.widths[0], *self.widths]
        return [[first, *[width] * (self.blocks - 1)] for first, width in zip(before, self.widths, strict=False)]

    @property
    def inputs_up(self) -> list[list[int]]:
        """The input widths of the blocks on the way up, level by level from the lowest resolution."""
        kept, current = self.kept, self.widths[-1]
        levels: list[list[int]] = []
        for width in reversed(self.widths):
            levels.append([])
            for _ in range(self.blocks + 1):
                levels[-1].append(current + kept.pop())
                current = width
        return levels

    @property
    def parameters(self) -> int:
        """Number of the network's parameters."""
        top, bottom = self.widths[0], self.widths[-1]
        total = (self.base + 1) * (top // (self.channels * self.sub_tokens_per_token))
        total += 2 * _residual(bottom, bottom) + _attention(bottom)
        for inputs, widths, attends in (
            (self.inputs_down, self.widths, self.attention),
            (self.inputs_up, self.widths[::-1], self.attention[::-1]),
        ):
            for level, width, has in zip(inputs, widths, attends, strict=True):
                total += sum(_residual(each, width) + has * _attention(width) for each in level)
        return total + 2 * top + self.channels * self.vocabulary_size * (9 * top + 1)

    @property
    def flops(self) -> int:
        """Floating-point operations of an evaluation of one canvas: those of convolutions and attention."""
        top, bottom = self.widths[0], self.widths[-1]
        lowest = self.pixels[-1]
        total = 2 * _residual_flops(lowest, bottom, bottom) + _attention_flops(lowest, bottom)
        for inputs, order in ((self.inputs_down, 1), (self.inputs_up, -1)):
            levels = zip(inputs, self.widths[::order], self.pixels[::order], self.attention[::order], strict=True)
            for level, width, pixels, attends in levels:
                total += sum(_residual_flops(pixels, each, width) for each in level)
                total += len(level) * attends * _attention_flops(pixels, width)
        return total + 2 * self.pixels[0] * 9 * top * self.channels * self.vocabulary_size


def _residual_flops(pixels: int, width_in: int, width: int) -> int:
    skip = width_in * width if width_in != width else 0
    return 2 * pixels * (9 * width_in * width + 9 * width * width + skip)


def _attention_flops(pixels: int, width: int) -> int:
    return 2 * pixels * 4 * width * width + 4 * pixels * pixels * width


def _residual(width_in: int, width: int) -> int:
    skip = (width_in + 1) * width if width_in != width else 0
    return 2 * width_in + (9 * width_in + 1) * width + 2 * width + (9 * width + 1) * width + skip


def _attention(width: int) -> int:
    return 2 * width + 4 * width * (width + 1)


class ResidualBlock(nn.Module):
    """x → skip(x) + conv(silu(norm(conv(silu(norm(x)))))); scale and shift are folded into the second norm."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, width_in, eps=GROUP_NORM_EPSILON)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, width, eps=GROUP_NORM_EPSILON)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else None

    def forward(self, x: Tensor) -> Tensor:
        """[1, width_in, h, w] → [1, width, h, w], float32."""
        h = convolve(F.silu(self.norm1(x)), self.conv1)
        h = convolve(F.silu(self.norm2(h)), self.conv2)
        return (x if self.skip is None else convolve(x, self.skip)) + h


class AttentionBlock(nn.Module):
    """x → x + proj(attend(qkv(norm(x)))) over all pixels, without a position encoding."""

    def __init__(self, width: int, head_channels: int) -> None:
        super().__init__()
        self.head_channels = head_channels
        self.norm = nn.GroupNorm(GROUPS, width, eps=GROUP_NORM_EPSILON)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[1, width, h, w], float32, in and out."""
        qkv = convolve(self.norm(x), self.qkv).flatten(2).transpose(1, 2)  # [1, pixels, 3 · width]
        q, k, v = qkv.unflatten(2, (3, -1, self.head_channels)).to(self.qkv.weight.dtype).unbind(2)
        attended = attention(q, k, v).float().transpose(1, 2).contiguous()
        return x + convolve(attended.view_as(x), self.proj)


class Stage(nn.Module):
    """A residual block, and attention behind it where the level has it."""

    def __init__(self, width_in: int, width: int, head_channels: int | None) -> None:
        super().__init__()
        self.block = ResidualBlock(width_in, width)
        self.attention = None if head_channels is None else AttentionBlock(width, head_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[1, width_in, h, w] → [1, width, h, w], float32."""
        x = self.block(x)
        return x if self.attention is None else self.attention(x)


def convolve(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Convolve float32 maps in the dtype of the layer's weights; float32 maps again.

    A processor without bfloat16 emulates such convolutions slowly: there they are float32 ones.
    """
    dtype = layer.weight.dtype if x.is_cuda or CPU_HAS_BFLOAT16 else torch.float32
    bias = None if layer.bias is None else layer.bias.to(dtype)
    return F.conv2d(x.to(dtype), layer.weight.to(dtype), bias, padding=layer.padding).float()


class UNetDenoiser(nn.Module):
    """The U-Net of MDM-Prime's image models, l ≥ 1. Satisfies `Denoiser`.

    The features of a position are its joint logits, because the output convolution is small and local: the head is the
    identity, and draws, candidates and scores work as with any network.
    """

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        self.shape = shape
        top, bottom = shape.widths[0], shape.widths[-1]
        heads = [shape.head_channels if has else None for has in shape.attention]
        self.embedding = nn.Embedding(shape.base + 1, top // (shape.channels * shape.sub_tokens_per_token))
        self.down = nn.ModuleList(
            nn.ModuleList(Stage(each, width, head) for each in inputs)
            for inputs, width, head in zip(shape.inputs_down, shape.widths, heads, strict=True)
        )
        self.middle = nn.ModuleList([Stage(bottom, bottom, shape.head_channels), Stage(bottom, bottom, None)])
        self.up = nn.ModuleList(
            nn.ModuleList(Stage(each, width, head) for each in inputs)
            for inputs, width, head in zip(shape.inputs_up, shape.widths[::-1], heads[::-1], strict=True)
        )
        self.norm = nn.GroupNorm(GROUPS, top, eps=GROUP_NORM_EPSILON)
        self.output = nn.Conv2d(top, shape.channels * shape.vocabulary_size, 3, padding=1)

    @property
    def length(self) -> int:
        return self.shape.length

    @property
    def vocabulary_size(self) -> int:
        return self.shape.vocabulary_size

    @property
    def activation_bytes_per_token(self) -> int:
        """Bytes of a canvas's maps, of a convolution's copies of its weights, and of the logits, by token."""
        shape = self.shape
        a_level = shape.blocks + 1
        maps = sum(width * shape.pixels[i // a_level] for i, width in enumerate(shape.kept))
        widest = max(max(inputs) * n for inputs, n in zip(shape.inputs_up, shape.pixels[::-1], strict=True))
        weights = max(parameter.numel() for parameter in self.parameters())
        numbers = maps + MAPS_AT_ONCE * widest + 2 * weights
        return 4 * (-(-numbers // shape.length) + 3 * shape.vocabulary_size)

    def serve_in(self, dtype: torch.dtype) -> "UNetDenoiser":
        """Keep the convolutions in `dtype`; norms, the embedding, the residual stream and the output stay float32."""
        for stage in (module for module in self.modules() if isinstance(module, Stage)):
            for layer in stage.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.to(dtype)
        return self

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """Evaluate canvases, each alone; features are the joint logits of the rows, float32 [N, C].

        Raises:
            ValueError: a canvas is not as long as the model.
        """
        if any(len(canvas) != self.length for canvas in canvases):
            raise ValueError(f"every canvas must have the model's length, {self.length} tokens")
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            moved = to_device([*canvases, *rows], self.embedding.weight.device)
            pairs = zip(moved[: len(canvases)], moved[len(canvases) :], strict=True)
            return torch.cat([self._evaluate(canvas)[read] for canvas, read in pairs])

    def _evaluate(self, canvas: Tensor) -> Tensor:
        """One canvas, int64 [L, l] → joint logits of every position, float32 [L, C]."""
        shape = self.shape
        planes = self.embedding(canvas).reshape(shape.height, shape.width, -1)
        # Contiguous maps: in channels_last a CPU's group norm loses three digits.
        x = planes.permute(2, 0, 1).contiguous()[None]
        kept = [x]
        for level, stages in enumerate(_levels(self.down)):
            if level:
                x = F.avg_pool2d(x, 2)
                kept.append(x)
            for stage in stages:
                x = stage(x)
                kept.append(x)
        for stage in self.middle:
            x = stage(x)
        for level, stages in enumerate(_levels(self.up)):
            if level:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            for stage in stages:
                x = stage(torch.cat([x, kept.pop()], dim=1))
        logits = convolve(F.silu(self.norm(x)), self.output)
        return logits.view(shape.channels, shape.vocabulary_size, -1).permute(2, 0, 1).flatten(0, 1)

    def head(self, features: Tensor) -> Tensor:
        return features

    def draw(self, features: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        return draw_from_logits(features, codes, draws)

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        """The network's own logits, unfiltered: int64 [B, L, l] → float32 [B, L, C].

        Raises:
            ValueError: a shape or a digit does not fit the network.
        """
        check_sub_tokens(sub_tokens, self.length, self.shape.sub_tokens_per_token, self.shape.base)
        batch, length, _ = sub_tokens.shape
        if batch == 0:
            return torch.zeros(0, length, self.vocabulary_size)
        features = self.trunk(list(sub_tokens), [torch.arange(length)] * batch)
        logits: Tensor = features.unflatten(0, (batch, length))
        return logits


def _levels(levels: nn.ModuleList) -> list[nn.ModuleList]:
    return [level for level in levels if isinstance(level, nn.ModuleList)]
