"""PNG in and out. What comes in is not trusted: its header is checked before any pixel is decoded.

A file is cut into its chunks, and only header, palette, pixels and end go to the decoder, so that neither text nor
colour profiles nor other frames of it are ever looked at.
"""

import base64
import binascii
import io
import math
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from unmask_diffusion import Painter

MAX_SCALE = 64
# pixels of what is read, and of all that one answer shows
MAX_PIXELS = 2**22
MAX_PNG_BYTES = 1 << 20
MAX_FRAMES = 128
FRAME_MILLISECONDS, LAST_FRAME_MILLISECONDS = 80, 1500

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MODES = {0: "greyscale", 2: "RGB", 3: "palette", 4: "greyscale with alpha", 6: "RGBA"}
WITH_ALPHA = (4, 6)
KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


class PictureError(ValueError):
    """A picture that cannot be read, or that does not fit the model; the message begins with the field."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param} {message}")
        self.param = param


def png_of_base64(param: str, text: str) -> bytes:
    """The bytes of a PNG file in base64. Raises PictureError: it is none, or has too many bytes."""
    if len(text) > 4 * math.ceil(MAX_PNG_BYTES / 3):
        raise PictureError(param, f"has {len(text)} characters of base64; a PNG can have {MAX_PNG_BYTES} bytes")
    try:
        return base64.b64decode(text.encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise PictureError(param, f"is not base64: {error}") from error


def read_png(param: str, data: bytes, painter: Painter, needs_alpha: bool = False, like: bytes | None = None) -> Tensor:
    """The pixels of a picture of the model's size, or of a whole multiple of it: uint8 [H, W, 4].

    Raises PictureError: it is no PNG, too large, of another size (than the model's, or than the file `like`), of more
    than 8 bits, animated, damaged, or has its transparency in a table; or it has no alpha where it is needed.
    """
    scale, kind, chunks = _check(param, data, painter)
    if like is not None and data[16:24] != like[16:24]:
        size, other = ("{} x {}".format(*size_of(each)) for each in (data, like))
        raise PictureError(param, f"has {size} pixels; it must have {other}, as the image has")
    if needs_alpha and kind not in WITH_ALPHA:
        raise PictureError(param, f"has no alpha channel (it is {MODES[kind]}): what is transparent is to be generated")
    try:
        with Image.open(io.BytesIO(SIGNATURE + b"".join(chunks)), formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("RGBA"))
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
        raise PictureError(param, f"is a damaged PNG: {error}") from error
    return torch.from_numpy(pixels[scale // 2 :: scale, scale // 2 :: scale].copy())


def _check(param: str, data: bytes, painter: Painter) -> tuple[int, int, list[bytes]]:
    """Check a file's header and chunks; how many times larger than the model's it is, its colour type, its chunks."""
    if len(data) > MAX_PNG_BYTES:
        raise PictureError(param, f"has {len(data)} bytes; a PNG can have {MAX_PNG_BYTES}")
    if not data.startswith(SIGNATURE):
        raise PictureError(param, "is not a PNG")
    chunks = [(name, chunk) for name, chunk in _chunks(param, data)]
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 25:
        raise PictureError(param, "is a damaged PNG: it does not begin with a header")
    width, height = size_of(data)
    depth, kind = data[24], data[25]
    scale = width // painter.width
    if (width, height) != (scale * painter.width, scale * painter.height) or not 1 <= scale <= MAX_SCALE:
        size = f"{painter.width} x {painter.height} pixels or up to {MAX_SCALE} times that"
        raise PictureError(param, f"has {width} x {height} pixels; pictures of this model have {size}")
    if width * height > MAX_PIXELS:
        raise PictureError(param, f"has {width} x {height} pixels; at most {MAX_PIXELS} are read")
    if depth != 8 and not (kind == 3 and depth < 8):
        raise PictureError(param, f"has {depth} bits a channel; it must have 8")
    if kind not in MODES:
        raise PictureError(param, f"is a damaged PNG: there is no colour type {kind}")
    names = {name for name, _ in chunks}
    if b"acTL" in names:
        raise PictureError(param, "is animated; it must be one picture")
    if b"tRNS" in names:
        raise PictureError(param, f"has the transparency of its {MODES[kind]} in a table; it must be an alpha channel")
    if b"IEND" not in names:
        raise PictureError(param, "is a damaged PNG: its end is missing")
    return scale, kind, [chunk for name, chunk in chunks if name in KEPT]


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height in the header of a PNG file."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def _chunks(param: str, data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a file: name, and all its bytes."""
    place = len(SIGNATURE)
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            raise PictureError(param, "is a damaged PNG: it is cut off")
        name = data[place + 4 : place + 8]
        yield name, data[place:end]
        if name == b"IEND":
            return
        place = end


def sheet_of(pictures: Tensor, columns: int | None = None) -> Tensor:
    """A contact sheet of pictures, uint8 [n, H, W, 4], row by row: [rows · H, columns · W, 4].

    Without `columns` it is as square as may be. Places that are left over are transparent.
    """
    count, height, width, _ = pictures.shape
    columns = min(count, columns or math.ceil(math.sqrt(count)))
    rows = math.ceil(count / columns)
    sheet = pictures.new_zeros(rows * columns, height, width, 4)
    sheet[:count] = pictures
    return sheet.view(rows, columns, height, width, 4).transpose(1, 2).reshape(rows * height, columns * width, 4)


def enlarged(pixels: Tensor, scale: int) -> Tensor:
    """Pixels [..., H, W, 4], each repeated: nearest neighbour."""
    return pixels.repeat_interleave(scale, -3).repeat_interleave(scale, -2)


def png_of(pixels: Tensor, scale: int = 1) -> bytes:
    """Pixels, uint8 [H, W, 4], as a PNG: RGB where all are opaque, else RGBA."""
    return film_of([pixels], scale)


def film_of(frames: Sequence[Tensor], scale: int = 1) -> bytes:
    """Frames, uint8 [H, W, 4] each, as an animated PNG that runs again and again; one frame is a plain PNG."""
    opaque = all(bool((frame[..., 3] == 255).all()) for frame in frames)
    images = [
        Image.fromarray(np.ascontiguousarray(enlarged(frame, scale)[..., : 3 if opaque else 4].numpy()))
        for frame in frames
    ]
    file = io.BytesIO()
    if len(images) == 1:
        images[0].save(file, "PNG")
    else:
        durations = [FRAME_MILLISECONDS] * (len(images) - 1) + [LAST_FRAME_MILLISECONDS]
        images[0].save(
            file, "PNG", save_all=True, append_images=images[1:], duration=durations, loop=0, disposal=0, blend=0
        )
    return file.getvalue()


def base64_of(png: bytes) -> str:
    """A file as JSON carries it."""
    return base64.b64encode(png).decode()
