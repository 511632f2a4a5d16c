"""Pictures side by side."""

import io

import torch
from PIL import Image
from torch import Tensor

from training.faces.composition import SIDE
from training.faces.palette import PALETTE

PAPER, LINE = 255, 160  # greys behind and between the pictures
PITCH = SIDE + 1


def sheet_of(pictures: Tensor, columns: int = 16, scale: int = 4) -> bytes:
    """A PNG of pictures, int64 [N, 256], row by row on white paper."""
    colours = torch.tensor(PALETTE, dtype=torch.uint8)
    opaque = torch.where(colours[:, 3:] > 0, colours[:, :3], PAPER)
    height, width = -(-len(pictures) // columns) * PITCH, min(columns, len(pictures)) * PITCH
    paper = torch.full((height, width, 3), LINE, dtype=torch.uint8)
    for n, picture in enumerate(opaque[pictures].view(-1, SIDE, SIDE, 3)):
        top, left = n // columns * PITCH, n % columns * PITCH
        paper[top : top + SIDE, left : left + SIDE] = picture
    image = Image.fromarray(paper.numpy()).resize((width * scale, height * scale), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
