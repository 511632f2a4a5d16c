"""The fields of a request that are for image models: checked against the model, and pixels turned into digits."""

import dataclasses

import torch
from unmask_diffusion import Outline, Painter

from unmask_service.api.errors import invalid
from unmask_service.api.schemas import GenerateBody, ImageInput
from unmask_service.api.score_schemas import ScoreBody
from unmask_service.broker import PictureForm
from unmask_service.pictures import MAX_PIXELS, PictureError, png_of_base64, read_png

PICTURE_FIELDS = {"image": None, "output": "ids", "scale": 1, "columns": None, "partial_images": 0}


def read_picture(model: Outline, body: GenerateBody) -> tuple[GenerateBody, PictureForm | None]:
    """A body with the digits of its image instead of the image; and the form that its pictures have in the answer.

    The form is None for a model that makes no pictures. Raises RefusedError.
    """
    painter = model.image
    if painter is None:
        for name, default in PICTURE_FIELDS.items():
            if getattr(body, name) != default:
                raise invalid(f"{name} is for image models; the canvases of this model are no pictures", name)
        return body, None
    check_size(painter, body.n, body.scale)
    form = PictureForm(body.output == "png", body.scale, body.partial_images)
    if body.image is None:
        return body, form
    try:
        sub_tokens, recoloured = digits_of(painter, body.image)
    except PictureError as error:
        raise invalid(str(error), error.param) from error
    update = {"sub_tokens": sub_tokens, "image": None}
    return body.model_copy(update=update), dataclasses.replace(form, recoloured=recoloured)


def read_scored_picture(model: Outline, body: ScoreBody) -> ScoreBody:
    """A body with the tokens of its image instead of the image. Raises RefusedError."""
    painter = model.image
    if painter is None or body.image is None:
        raise invalid("image is for image models; the canvases of this model are no pictures", "image")
    everything = body.image.model_copy(update={"given_digits": [] if body.image.mask is None else None})
    try:
        sub_tokens, _ = digits_of(painter, everything)
        png = read_png("image.png", png_of_base64("image.png", body.image.png), painter)
    except PictureError as error:
        raise invalid(str(error), error.param) from error
    tokens, _ = painter.tokens_of(png)
    given = [position for position, digits in enumerate(sub_tokens) if digits[0] is not None]
    return body.model_copy(update={"input": tokens.tolist(), "given": given, "image": None})


def check_size(painter: Painter, pictures: int, scale: int, param: str = "scale") -> None:
    """Refuse an answer of more pixels than `MAX_PIXELS`."""
    pixels = pictures * painter.height * painter.width
    if pixels * scale**2 > MAX_PIXELS:
        most = int((MAX_PIXELS / pixels) ** 0.5)
        raise invalid(
            f"{param} is {scale}: {pictures} pictures of {painter.width} x {painter.height} pixels can be enlarged at "
            f"most {most} times ({MAX_PIXELS} pixels in all)",
            param,
        )


def digits_of(painter: Painter, image: ImageInput) -> tuple[list[list[int | None]], int]:
    """The digits of a picture with holes where they are to be generated; and how many given pixels had other colours.

    Raises PictureError.
    """
    table = painter.sub_tokenizer
    if image.given_digits and max(image.given_digits) >= table.sub_tokens_per_token:
        message = f"holds {max(image.given_digits)}; a token has the digits 0 … {table.sub_tokens_per_token - 1}"
        raise PictureError("image.given_digits", message)
    everything = image.mask is None and image.given_digits is not None
    png = png_of_base64("image.png", image.png)
    pixels = read_png("image.png", png, painter, needs_alpha=image.mask is None and not everything)
    if image.mask is not None:
        mask = read_png("image.mask", png_of_base64("image.mask", image.mask), painter, needs_alpha=True, like=png)
    else:
        mask = pixels
    holes = (mask[..., 3] == 0) | everything
    tokens, changed = painter.tokens_of(pixels)
    digits = table.encode(tokens)
    masked = holes.view(-1).repeat_interleave(painter.channels)[:, None].repeat(1, table.sub_tokens_per_token)
    masked[:, list(image.given_digits or [])] = False
    rows = torch.where(masked, -1, digits).tolist()
    recoloured = int((changed & (~holes | bool(image.given_digits))).sum())
    return [[None if digit < 0 else digit for digit in row] for row in rows], recoloured
