"""What `unmask generate` does with image models: pictures from and into files, and half blocks in the terminal."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.color import Color
from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    from torch import Tensor
    from unmask_diffusion import ActiveSample, Painter, Plan
    from unmask_model_store import Bundle

UPPER_HALF = "▀"
# what transparent pixels show in a terminal
BACKDROP = 48
# sheets of a film beside its first and last
FRAMES = 48


def picture_fields(
    bundle: Bundle, image: Path | None, mask: Path | None, keep_digits: str | None, film: Path | None
) -> dict[str, Any]:
    """The fields of a request that complete a picture. Raises RequestError."""
    from unmask_diffusion import RequestError

    given = {"image": image, "mask": mask, "keep_digits": keep_digits, "film": film}
    for option, value in given.items():
        name = option.replace("_", "-")
        if value is not None and bundle.image is None:
            raise RequestError(name, f"{name} is for image models; the canvases of {bundle.name} are no pictures")
        if value is not None and image is None and option in ("mask", "keep_digits"):
            raise RequestError(name, f"{name} is for a picture to complete: give --image too")
    if image is None or bundle.image is None:
        return {}
    return {"sub_tokens": _digits(bundle.image, image, mask, keep_digits)}


def _digits(painter: Painter, image: Path, mask: Path | None, keep_digits: str | None) -> list[list[int | None]]:
    from unmask_diffusion import RequestError

    from unmask_service.api import ImageInput, digits_of
    from unmask_service.pictures import PictureError

    files = {name: file for name, file in (("png", image), ("mask", mask)) if file is not None}
    fields: dict[str, Any] = {name: base64.b64encode(file.read_bytes()).decode() for name, file in files.items()}
    if keep_digits is not None:
        try:
            fields["given_digits"] = [int(each) for each in keep_digits.split(",")]
        except ValueError as error:
            raise RequestError("keep-digits", f"keep-digits is {keep_digits!r}; it looks like 0 or 0,1") from error
    try:
        sub_tokens, recoloured = digits_of(painter, ImageInput.model_validate(fields))
    except PictureError as error:
        option = {"image.png": "image", "image.mask": "mask"}.get(error.param, "keep-digits")
        raise RequestError(option, str(error).replace(error.param, option, 1)) from error
    if recoloured:
        typer.echo(f"{recoloured} pixels had colours that the model does not have; each became the nearest", err=True)
    return sub_tokens


def draw(bundle: Bundle, painter: Painter, plans: Iterable[Plan], out: Path, film: Path | None) -> None:
    """Draw all samples, and write a contact sheet and, where it is asked for, a film of the unmasking."""
    import torch
    from unmask_diffusion import run

    from unmask_service.pictures import film_of, png_of, sheet_of

    pictures: list[Tensor] = []
    frames: list[Tensor] = []
    for plan in plans:
        states: list[Tensor] = []

        def keep(samples: list[ActiveSample], states: list[Tensor] = states) -> None:
            states.append(torch.stack([each.digits for each in samples]).to(torch.int32))

        samples = run(bundle, plan, keep if film is not None else lambda _: None)
        pictures += [painter.paint(sample.token_ids) for sample in samples]
        # the films of several requests run side by side
        shown = [painter.paint(states[place].long()) for place in _spread(len(states))]
        frames = [torch.cat(pair) for pair in zip(frames, shown, strict=True)] if frames else shown
    out.write_bytes(png_of(sheet_of(torch.stack(pictures))))
    if film is not None:
        film.write_bytes(film_of([sheet_of(each) for each in frames]))


def _spread(states: int) -> list[int]:
    """Which of the states a film shows."""
    return [frame * (states - 1) // (FRAMES + 1) for frame in range(FRAMES + 2)] if states else []


def half_blocks(pictures: Sequence[Tensor], width: int) -> Text:
    """Pictures, uint8 [H, W, 4], side by side and below each other: two pixels a character, in 24-bit colour."""
    import torch

    from unmask_service.pictures import sheet_of

    columns = max(1, min(len(pictures), width // pictures[0].shape[1]))
    sheet = sheet_of(torch.stack([*pictures]), columns).double()
    alpha = sheet[..., 3:] / 255
    colours = (sheet[..., :3] * alpha + BACKDROP * (1 - alpha)).round().long()
    if len(colours) % 2:
        colours = torch.cat([colours, torch.full_like(colours[:1], BACKDROP)])
    text = Text(no_wrap=True)
    for upper, lower in zip(colours[::2].tolist(), colours[1::2].tolist(), strict=True):
        for top, bottom in zip(upper, lower, strict=True):
            text.append(UPPER_HALF, Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom)))
        text.append("\n")
    return text
