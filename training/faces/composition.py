"""Avatars, composed from parts: a face, clothes, eyes, a mouth, hair, and now and then glasses, a hat, earrings.

Each part is drawn over the ones before it, in one of its shapes and one of its colours, all equally likely. The shapes
are DiceBear's "pixel art" (`parts.txt`, one letter a pixel; LICENSE.dicebear-pixel-art); the colours are `palette`'s.
"""

import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training.faces import palette
from training.faces.palette import TRANSPARENT

SIDE = 16
PARTS_FILE = Path(__file__).with_name("parts.txt")
EMPTY = -1  # a pixel that a part leaves as it is


@dataclass(frozen=True)
class Part:
    """One layer of an avatar.

    Attributes:
        name: what it is.
        looks: int64 [shapes, colours, pixels], the class of each pixel, or `EMPTY`.
        share: of the avatars that have one.
    """

    name: str
    looks: Tensor
    share: float


# for each part, from the bottom to the top: the share that has one, and for each letter of its shapes the classes,
# one for each colour of the part or one for all
_LETTERS: dict[str, tuple[float, dict[str, tuple[int, ...]]]] = {
    "face": (1.0, {"+": palette.SKIN, "#": palette.SKIN_SHADOW}),
    "accessories": (0.15, {"#": palette.METAL}),
    "clothing": (1.0, {"#": palette.CLOTHES, "+": palette.CLOTHES_LIGHT}),
    "eyes": (1.0, {"#": palette.IRIS, "o": (palette.WHITE,), "+": (palette.SHADE,)}),
    "glasses": (0.25, {"#": palette.FRAME, "~": (palette.LENS,)}),
    "mouth": (1.0, {"#": palette.LIPS, "o": (palette.WHITE,), "+": (palette.PINK,)}),
    "hair": (1.0, {"#": palette.HAIR}),
    "hat": (0.12, {"#": palette.HAT, "+": (palette.CREAM,)}),
}


def read_parts() -> list[Part]:
    """All parts, from the bottom to the top."""
    shapes: dict[str, list[str]] = {name: [] for name in _LETTERS}
    for drawing in PARTS_FILE.read_text().strip().split("\n\n"):
        name, *rows = drawing.split("\n")
        shapes[name].append("".join(rows))
    return [
        Part(name, torch.tensor([_looks(shape, letters) for shape in shapes[name]]), share)
        for name, (share, letters) in _LETTERS.items()
    ]


def _looks(shape: str, letters: dict[str, tuple[int, ...]]) -> list[list[int]]:
    """A shape in every colour of its part."""
    colours = max(map(len, letters.values()))
    classes = {letter: ids * colours if len(ids) == 1 else ids for letter, ids in letters.items()}
    return [[classes[letter][k] if letter != "." else EMPTY for letter in shape] for k in range(colours)]


class Avatars:
    """Endless avatars, and how much there is to know about one."""

    def __init__(self) -> None:
        self.parts = read_parts()

    def batch(self, chance: random.Random, count: int, length: int = SIDE * SIDE) -> Tensor:
        """Draw `count` avatars, int64 [count, 256]: the class of each pixel, row by row. See `Source`."""
        if length != SIDE * SIDE:
            raise ValueError(f"an avatar has {SIDE * SIDE} pixels, not {length}")
        generator = torch.Generator().manual_seed(chance.getrandbits(63))
        avatars = torch.full((count, length), TRANSPARENT)
        for part in self.parts:
            shapes, colours, _ = part.looks.shape
            shape = torch.randint(shapes, (count,), generator=generator)
            colour = torch.randint(colours, (count,), generator=generator)
            worn = torch.rand(count, generator=generator) < part.share
            look = part.looks[shape, colour]
            avatars = torch.where((look != EMPTY) & worn[:, None], look, avatars)
        return avatars

    @property
    def entropy(self) -> float:
        """The entropy of the choices, in nats an avatar: an upper bound of the picture's, since parts hide others."""
        total = 0.0
        for part in self.parts:
            shapes, colours, _ = part.looks.shape
            total += part.share * math.log(shapes * colours)
            total -= sum(p * math.log(p) for p in (part.share, 1 - part.share) if p)
        return total
