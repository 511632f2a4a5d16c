"""What is no picture of the model is refused, by its header, before anything of its size is allocated."""

import base64
import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from unmask_diffusion import Painter
from unmask_service.pictures import (
    MAX_PNG_BYTES,
    SIGNATURE,
    PictureError,
    film_of,
    png_of,
    png_of_base64,
    read_png,
    sheet_of,
)

from tests.helpers import code_table
from tests.helpers_server import Server

PALETTE = [(0, 0, 0, 0), (255, 255, 255, 255), (255, 0, 0, 255), (0, 0, 0, 255)]
PAINTER = Painter(4, 4, 1, PALETTE, code_table(4, 2, 3))


def encoded(image: Image.Image, **options: Any) -> bytes:  # noqa: ANN401 — what Pillow takes
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_header(width: int, height: int, depth: int = 8, kind: int = 6, more: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return SIGNATURE + header + more + chunk(b"IDAT", zlib.compress(b"\0" * 68)) + chunk(b"IEND", b"")


RGBA = Image.new("RGBA", (4, 4), (255, 0, 0, 255))
GOOD = encoded(RGBA)
PALETTED = Image.new("P", (4, 4))
PALETTED.putpalette([0, 0, 0, 255, 255, 255])
FRAMES = [Image.new("RGBA", (4, 4), (value, 0, 0, 255)) for value in (0, 99)]

BAD = {
    "another size": (encoded(Image.new("RGBA", (5, 4))), "has 5 x 4 pixels; pictures of this model have 4 x 4 pixels"),
    "not the same multiple": (encoded(Image.new("RGBA", (8, 4))), "has 8 x 4 pixels"),
    "too large a multiple": (with_header(4 * 65, 4 * 65), "has 260 x 260 pixels"),
    "a bomb": (with_header(60_000, 60_000), "has 60000 x 60000 pixels"),
    "no pixels": (with_header(0, 0), "has 0 x 0 pixels"),
    "too many bytes": (GOOD + bytes(MAX_PNG_BYTES), f"a PNG can have {MAX_PNG_BYTES}"),
    "16 bit": (encoded(Image.fromarray(np.zeros((4, 4), np.uint16))), "has 16 bits a channel; it must have 8"),
    "1 bit of grey": (encoded(Image.new("1", (4, 4))), "has 1 bits a channel"),
    "no such colour type": (with_header(4, 4, kind=5), "there is no colour type 5"),
    "animated": (encoded(FRAMES[0], save_all=True, append_images=FRAMES[1:]), "is animated"),
    "palette with transparency": (encoded(PALETTED, transparency=0), "the transparency of its palette in a table"),
    "a colour that is transparent": (encoded(RGBA.convert("RGB"), transparency=(255, 0, 0)), "transparency of its RGB"),
    "cut off": (GOOD[:-20], "is a damaged PNG: it is cut off"),
    "without its end": (GOOD[:-12], "its end is missing"),
    "header alone": (GOOD[:33], "its end is missing"),
    "pixels missing": (with_header(4, 4)[:33] + chunk(b"IEND", b""), "is a damaged PNG"),
    "too few pixels": (with_header(8, 8), "is a damaged PNG"),
    "pixels that are none": (GOOD[:33] + chunk(b"IDAT", b"nonsense") + chunk(b"IEND", b""), "is a damaged PNG"),
    "nothing": (b"", "is not a PNG"),
    "a JPEG": (b"\xff\xd8\xff\xe0" + bytes(100), "is not a PNG"),
    "signature alone": (SIGNATURE, "does not begin with a header"),
    "another chunk first": (SIGNATURE + chunk(b"tEXt", b"a\0b") + GOOD[8:], "does not begin with a header"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_without_memory_of_its_size(name: str) -> None:
    data, complaint = BAD[name]
    tracemalloc.start()
    with pytest.raises(PictureError) as refused:
        read_png("image.png", data, PAINTER)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert complaint in str(refused.value)
    assert str(refused.value).startswith("image.png ")


@pytest.mark.parametrize("image", [RGBA, RGBA.convert("RGB"), RGBA.convert("L"), RGBA.convert("LA"), PALETTED])
def test_eight_bits_of_any_kind_are_read(image: Image.Image) -> None:
    pixels = read_png("image.png", encoded(image), PAINTER)
    assert torch.equal(pixels, torch.tensor(np.asarray(image.convert("RGBA"))))


def test_text_and_profiles_are_not_looked_at() -> None:
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10 << 20)))
    data = GOOD[:33] + bomb + chunk(b"iCCP", b"p\0\0nonsense") + GOOD[33:]
    assert torch.equal(read_png("image.png", data, PAINTER), read_png("image.png", GOOD, PAINTER))


@given(st.data())
def test_any_damage_is_a_refusal_or_a_picture(data: st.DataObject) -> None:
    damaged = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = read_png("image.png", bytes(damaged[: data.draw(st.integers(0, len(damaged)))]), PAINTER)
    except PictureError:
        return
    assert pixels.shape == (4, 4, 4)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 7), st.booleans(), st.integers(0, 2**32))
def test_what_is_written_is_read_again(height: int, width: int, scale: int, opaque: bool, seed: int) -> None:
    pixels = torch.randint(0, 256, (height, width, 4), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    if opaque:
        pixels[..., 3] = 255
    painter = Painter(height, width, 3, None, code_table(256, 2))
    data = png_of(pixels, scale)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (width * scale, height * scale)
        assert image.mode == ("RGB" if bool((pixels[..., 3] == 255).all()) else "RGBA")
    assert torch.equal(read_png("image.png", data, painter), pixels)
    assert png_of(pixels, scale) == data


def test_a_sheet_is_filled_row_by_row() -> None:
    pictures = torch.arange(1, 6, dtype=torch.uint8)[:, None, None, None].expand(5, 2, 3, 4)
    assert sheet_of(pictures)[::2, ::3, 0].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert sheet_of(pictures, 2)[::2, ::3, 0].tolist() == [[1, 2], [3, 4], [5, 0]]
    assert sheet_of(pictures, 9)[::2, ::3, 0].tolist() == [[1, 2, 3, 4, 5]]


def test_a_film_has_its_frames_and_ends_as_it_should() -> None:
    frames = [torch.full((2, 2, 4), value, dtype=torch.uint8) for value in (10, 20, 30)]
    with Image.open(io.BytesIO(film_of(frames, 2))) as film:
        assert (getattr(film, "n_frames", 1), film.info["loop"], film.size) == (3, 0, (4, 4))
        for number, frame in enumerate(frames):
            film.seek(number)
            assert np.array_equal(np.asarray(film.convert("RGBA"))[::2, ::2], frame.numpy())
    assert film_of(frames[:1]) == png_of(frames[0])


@pytest.mark.parametrize("text", ["%%%", "AAA", "AA==\n", "é", "A" * (2 * MAX_PNG_BYTES)])
def test_base64_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(PictureError, match=r"^image\.mask .*base64"):
        png_of_base64("image.mask", text)


# --- over HTTP --------------------------------------------------------------------------------------------------------


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def blank(size: int) -> str:
    return b64(encoded(Image.new("RGBA", (size, size))))


WITHOUT_ALPHA = b64(encoded(RGBA.convert("RGB")))
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    *[
        ({"image": {"png": b64(data)}}, "image.png", complaint)
        for name, (data, complaint) in BAD.items()
        if len(data) < 1e5
    ],
    ({"image": {"png": "%"}}, "image.png", "is not base64"),
    ({"image": {"png": b64(GOOD), "mask": "%"}}, "image.mask", "is not base64"),
    (
        {"image": {"png": b64(GOOD), "mask": b64(encoded(Image.new("RGBA", (8, 8))))}},
        "image.mask",
        "it must have 4 x 4",
    ),
    ({"image": {"png": b64(GOOD), "mask": b64(encoded(Image.new("RGBA", (5, 5))))}}, "image.mask", "has 5 x 5 pixels"),
    ({"image": {"png": b64(GOOD), "mask": WITHOUT_ALPHA}}, "image.mask", "has no alpha channel"),
    ({"image": {"png": WITHOUT_ALPHA}}, "image.png", "has no alpha channel"),
    ({"image": {"png": b64(GOOD), "given_digits": [2]}}, "image.given_digits", "holds 2; a token has the digits 0 … 1"),
    ({"image": {"png": b64(GOOD), "given_digits": [-1]}}, "image.given_digits.0", "greater than or equal to 0"),
    ({"image": {"png": 3}}, "image.png", "string"),
    ({"image": {}}, "image.png", "required"),
    ({"image": {"png": b64(GOOD), "size": 3}}, "image.size", "there is no such field"),
    ({"image": "x"}, "image", ""),
    ({"image": {"png": b64(GOOD)}, "canvas": [None] * 16}, "image", "leave out canvas"),
    ({"prompt": "a cat"}, "prompt", "this is an image model"),
    ({"suffix": [1]}, "suffix", "this is an image model"),
    ({"max_tokens": 3}, "max_tokens", "this is an image model"),
    ({"canvas": [None] * 15}, "canvas", "canvas has 15 tokens; a picture of this model has 16"),
    ({"sub_tokens": [[0, None]] * 15}, "sub_tokens", "has 15 tokens"),
    ({"sub_tokens": [[2, None]] * 16}, "sub_tokens", "no token has these digits"),
    ({"scale": 0}, "scale", "greater than or equal to 1"),
    ({"scale": 1000}, "scale", "less than or equal to 64"),
    ({"scale": 2.5}, "scale", "integer"),
    ({"output": "jpeg"}, "output", "'ids' or 'png'"),
    ({"columns": 2}, "columns", "Accept: image/png"),
    ({"partial_images": 2}, "partial_images", "set stream"),
    ({"partial_images": 17, "stream": True}, "partial_images", "less than or equal to 16"),
]


def test_each_bad_request_names_its_field_and_limit(pixels: Server) -> None:
    for body, param, complaint in REFUSED:
        response = pixels.http.post("/generate", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (422, param), (body, error)
        assert complaint in error["message"], error
        assert param.partition(".")[0] in error["message"], error
