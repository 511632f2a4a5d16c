"""`unmask generate` with an image model."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from unmask_diffusion import sample
from unmask_model_store import open_bundle
from unmask_service.cli.pictures import half_blocks

from tests.helpers_command_line import Run
from tests.service.test_pictures import GIVEN, LEFT_HALF, painted, pixels_of, png


def test_a_sheet_and_a_film_are_written(bundles: Path, tmp_path: Path, run: Run) -> None:
    out, film = tmp_path / "sheet.png", tmp_path / "film.png"
    ended = run("generate", "--model", bundles / "pixels", "--n", "4", "--seed", "3", "--out", out, "--film", film)
    assert ended.code == 0, ended.stderr
    expected = [each.token_ids for each in sample(open_bundle(bundles / "pixels"), n=4, seed=3)]
    sheet = pixels_of(out.read_bytes())
    for number, ids in enumerate(expected):
        top, left = number // 2 * 4, number % 2 * 4
        assert [row[left : left + 4] for row in sheet[top : top + 4]] == painted(list(ids))
    with Image.open(film) as frames:
        count = getattr(frames, "n_frames", 1)
        assert count > 10
        frames.seek(count - 1)
        assert [[tuple(map(int, each)) for each in row] for row in np.asarray(frames.convert("RGBA"))] == sheet


def test_a_picture_is_completed(bundles: Path, tmp_path: Path, run: Run) -> None:
    image, mask, out = tmp_path / "in.png", tmp_path / "mask.png", tmp_path / "out.png"
    image.write_bytes(base64.b64decode(png(painted(GIVEN))))
    mask.write_bytes(base64.b64decode(png(LEFT_HALF)))
    words = ("generate", "--model", bundles / "pixels", "--image", image, "--seed", "1")
    assert run(*words, "--mask", mask, "--out", out).code == 0
    assert [row[:2] for row in pixels_of(out.read_bytes())] == [row[:2] for row in painted(GIVEN)]
    ids = json.loads(run(*words, "--keep-digits", "0", "--json").stdout)["token_ids"]
    assert [token // 3 for token in ids] == [token // 3 for token in GIVEN]


def test_mistakes_are_named(bundles: Path, tmp_path: Path, run: Run) -> None:
    bad = tmp_path / "bad.png"
    file = io.BytesIO()
    Image.new("RGBA", (5, 5)).save(file, "PNG")
    bad.write_bytes(file.getvalue())
    for words, complaint in (
        (["--image", bad], "image has 5 x 5 pixels"),
        (["--image", tmp_path / "none.png"], "No such file"),
        (["--mask", bad], "mask is for a picture to complete"),
        (["--film", bad], "film is written beside a contact sheet"),
        (["a cat"], "prompt is for text; this is an image model"),
    ):
        ended = run("generate", "--model", bundles / "pixels", *words)
        assert (ended.code, complaint in ended.stderr) == (2, True), ended
    ended = run("generate", "--model", bundles / "chain", "--image", bad)
    assert (ended.code, "image is for image models" in ended.stderr) == (2, True), ended


def test_in_the_terminal_two_pixels_are_a_character() -> None:
    pictures = torch.tensor([[[[255, 0, 0, 255], [0, 0, 0, 0]], [[0, 255, 0, 255], [0, 0, 255, 255]]]] * 3).to(
        torch.uint8
    )
    console = Console(force_terminal=True, color_system="truecolor", width=5, record=True, file=io.StringIO())
    console.print(half_blocks(list(pictures), 5))
    text = console.export_text(styles=True)
    assert [line.count("▀") for line in text.splitlines()[:2]] == [4, 4]
    assert "38;2;255;0;0;48;2;0;255;0m▀" in text
    assert "38;2;48;48;48;48;2;0;0;255m▀" in text
