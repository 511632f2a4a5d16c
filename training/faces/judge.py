"""Whether a picture is whole: exact, since avatars are composed from known parts. How strange its details are."""

import random

import torch
from torch import Tensor

from training.faces.composition import EMPTY, SIDE, Avatars, Part
from training.faces.palette import TRANSPARENT

PATCH = 3
CLASSES = 64


def parts_of(picture: Tensor, parts: list[Part]) -> dict[str, tuple[int, int] | None] | None:
    """Take a picture apart, from its topmost part down.

    What a part covers may hide anything below it, so every part that fits is tried until the rest fits too.

    Args:
        picture: int64 [256], the class of each pixel.
        parts: of the avatars, from the bottom to the top.

    Returns:
        The shape and the colour of each part, None for a part that is absent; or None for a picture that is not
        whole: no choice of parts draws it.
    """
    return _take_apart(picture, torch.zeros_like(picture, dtype=torch.bool), parts)


def _take_apart(picture: Tensor, covered: Tensor, parts: list[Part]) -> dict[str, tuple[int, int] | None] | None:
    if not parts:
        return {} if bool((covered | (picture == TRANSPARENT)).all()) else None
    *lower, part = parts
    fits = ((part.looks == picture) | (part.looks == EMPTY) | covered).all(-1)
    for shape, colour in fits.nonzero().tolist():
        below = _take_apart(picture, covered | (part.looks[shape, colour] != EMPTY), lower)
        if below is not None:
            return {**below, part.name: (shape, colour)}
    if part.share < 1:
        below = _take_apart(picture, covered, lower)
        if below is not None:
            return {**below, part.name: None}
    return None


def is_whole(picture: Tensor, parts: list[Part]) -> bool:
    """Whether some choice of parts draws exactly this picture: all in place, one colour each, no stray pixel."""
    return parts_of(picture, parts) is not None


class Patches:
    """All patches of 3 × 3 pixels in many composed avatars."""

    def __init__(self, avatars: Avatars, pictures: int = 20_000, seed: int = 7) -> None:
        self.known = _patches(avatars.batch(random.Random(seed), pictures)).unique()

    def unseen(self, pictures: Tensor) -> float:
        """The share of the patches of pictures, int64 [N, 256], that none of the composed avatars has."""
        found = _patches(pictures)
        place = torch.searchsorted(self.known, found).clamp_max(len(self.known) - 1)
        return float((self.known[place] != found).double().mean())


def _patches(pictures: Tensor) -> Tensor:
    """Each patch as a number in base 64, flat."""
    windows = pictures.view(-1, SIDE, SIDE).unfold(1, PATCH, 1).unfold(2, PATCH, 1).flatten(3)
    return (windows * CLASSES ** torch.arange(PATCH * PATCH)).sum(-1).flatten()
