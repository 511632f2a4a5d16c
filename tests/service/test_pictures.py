"""Image models over HTTP."""

import base64
import io
import math
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from unmask_diffusion import Painter

from tests.helpers import code_table
from tests.helpers_server import Body, Server, generate_together, token_ids

MASKED: list[int | None] = [None, None]


def test_digits_with_holes_are_completed_in_any_model(chain: Server) -> None:
    sub_tokens: list[list[int | None]] = [[0, None], MASKED, [1, 0], [None, 2], [None, None]]
    stream = chain.stream(sub_tokens=sub_tokens, seed=5, n=2)
    assert stream.start["sub_tokens"] == [[0, 0, 0], [3, 1, 2]]
    assert stream.start["canvas"] == [[[2, 3, None]]] * 2
    assert stream.start["masked"] == 2 * 6
    canvases = stream.canvases()
    for sample, canvas in enumerate(canvases):
        tokens = stream.done["choices"][sample]["token_ids"]
        for position, token in enumerate(tokens):
            digits = [token // 3, token % 3]
            for j, digit in enumerate(digits):
                asked = sub_tokens[position][j]
                assert asked in (None, digit)
                assert canvas[position][j] == (digit if asked is None else None)
    completed = stream.tokens()
    assert [completed[i][p] for i in range(2) for p in range(5)] == [
        token for choice in stream.done["choices"] for token in choice["token_ids"]
    ]
    assert chain.generate(sub_tokens=sub_tokens, seed=5, n=2)["choices"] == stream.done["choices"]


def test_digits_that_name_no_token_are_refused(chain: Server) -> None:
    for sub_tokens, complaint in (
        ([[1, 1]], "sub_tokens.0 is [1, 1]: no token has these digits"),
        ([[0, 0], [2, None]], "sub_tokens.1 is [2, None]: no token has these digits"),
        ([[0, 3]], "sub_tokens.0 holds digit 3; the model's are 0 … 2"),
        ([[0]], "sub_tokens.0 has 1 digit"),
        ([], "sub_tokens: "),
        ([[0, -1]], "sub_tokens.0.1: "),
    ):
        response = chain.http.post("/generate", json={"sub_tokens": sub_tokens})
        error: Body = response.json()["error"]
        assert (response.status_code, complaint in error["message"]) == (422, True), error
        assert error["param"].startswith("sub_tokens")


# --- pictures ---------------------------------------------------------------------------------------------------------

WHITE, RED, BLACK, CLEAR = (255, 255, 255, 255), (255, 0, 0, 255), (0, 0, 0, 255), (0, 0, 0, 0)
PALETTE = [CLEAR, WHITE, RED, BLACK]
SIZE = 4


def png(pixels: Any, mode: str = "RGBA", **options: Any) -> str:  # noqa: ANN401 — what Pillow takes
    file = io.BytesIO()
    Image.fromarray(np.array(pixels, dtype=np.uint8), mode).save(file, "PNG", **options)
    return base64.b64encode(file.getvalue()).decode()


def pixels_of(data: bytes) -> list[list[tuple[int, ...]]]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        array = np.asarray(image.convert("RGBA"))
    return [[tuple(map(int, pixel)) for pixel in row] for row in array]


def painted(ids: list[int]) -> list[list[tuple[int, ...]]]:
    return [[PALETTE[token] for token in ids[row * SIZE : (row + 1) * SIZE]] for row in range(SIZE)]


GIVEN = [3, 1, 2, 1, 0, 2, 3, 3, 1, 1, 2, 0, 3, 2, 1, 0]
LEFT_HALF = [[(0, 0, 0, 255 if column < 2 else 0) for column in range(SIZE)] for _ in range(SIZE)]


def test_the_card_and_the_start_say_how_to_paint(pixels: Server) -> None:
    (card,) = pixels.http.get("/v1/models").json()["data"]
    assert card["image"] == {"height": 4, "width": 4, "channels": 1, "palette": [list(each) for each in PALETTE]}
    assert card["clock"] == 3
    start = pixels.stream(seed=1).start
    assert (start["image"], start["length"], start["masked"]) == (card["image"], 16, 32)


def test_a_picture_needs_nothing_but_a_seed(pixels: Server) -> None:
    answer = pixels.generate(seed=3, n=2, output="png", scale=3)
    for choice in answer["choices"]:
        assert len(choice["token_ids"]) == 16
        image = choice["image"]
        assert (image["width"], image["height"]) == (12, 12)
        shown = pixels_of(base64.b64decode(image["b64_json"]))
        assert [row[::3] for row in shown[::3]] == painted(choice["token_ids"])
        assert [row[2::3] for row in shown[1::3]] == painted(choice["token_ids"])
    ids = pixels.generate(seed=3, n=2)
    assert [choice.get("image") for choice in ids["choices"]] == [None, None]
    assert token_ids(ids) == token_ids(answer)


def test_bits_alone_and_among_32_are_the_same(pixels: Server) -> None:
    bodies = [{"seed": seed, "sampler": {"steps": 5}} for seed in range(32)]
    together = [token_ids(answer) for answer in generate_together(pixels.url, bodies)]
    assert [token_ids(pixels.generate(**bodies[i])) for i in (0, 7, 31)] == [together[i] for i in (0, 7, 31)]
    assert pixels.generate(seed=1, sampler={"steps": 5, "clock": 3})["choices"][0]["token_ids"] == together[1][0]


@pytest.mark.parametrize("scale", [1, 5])
def test_what_is_given_stays_and_the_rest_is_drawn(pixels: Server, scale: int) -> None:
    def large(rows: Any) -> Any:  # noqa: ANN401 — nested lists of pixels
        return np.repeat(np.repeat(np.array(rows), scale, 0), scale, 1)

    image = {"png": png(large(painted(GIVEN))), "mask": png(large(LEFT_HALF))}
    seen = set()
    for seed in range(8):
        answer = pixels.generate(image=image, seed=seed)
        assert answer["recoloured_pixels"] == 0
        assert answer["usage"]["prompt_tokens"] == 8
        (ids,) = token_ids(answer)
        assert [token for place, token in enumerate(ids) if place % 4 < 2] == [
            token for place, token in enumerate(GIVEN) if place % 4 < 2
        ]
        seen.add(tuple(ids))
        canvas = [token if place % 4 < 2 else None for place, token in enumerate(GIVEN)]
        assert token_ids(pixels.generate(canvas=canvas, seed=seed)) == [ids]
    assert len(seen) > 1


def test_given_digits_are_kept_of_what_is_masked(pixels: Server) -> None:
    """Without a mask everything is: the papers' imputation."""
    for seed in range(4):
        (ids,) = token_ids(pixels.generate(image={"png": png(painted(GIVEN)), "given_digits": [0]}, seed=seed))
        assert [token // 3 for token in ids] == [token // 3 for token in GIVEN]
        (ids,) = token_ids(
            pixels.generate(image={"png": png(painted(GIVEN)), "mask": png(LEFT_HALF), "given_digits": [1]}, seed=seed)
        )
        for place, token in enumerate(ids):
            assert token % 3 == GIVEN[place] % 3
            assert place % 4 >= 2 or token == GIVEN[place]
    (ids,) = token_ids(pixels.generate(image={"png": png(painted(GIVEN)), "given_digits": [0, 1]}))
    assert ids == GIVEN


def test_without_a_mask_the_pictures_own_transparency_counts(pixels: Server) -> None:
    (ids,) = token_ids(pixels.generate(image={"png": png(painted(GIVEN))}, seed=1))
    assert all(token in (given, *([0, 1, 2, 3] if given == 0 else [])) for token, given in zip(ids, GIVEN, strict=True))


def test_other_colours_become_the_nearest_and_are_counted(pixels: Server) -> None:
    rows = painted([1] * 16)
    rows[0][0], rows[0][1], rows[0][3] = (250, 250, 250, 255), (200, 10, 10, 255), (9, 200, 77, 255)
    answer = pixels.generate(image={"png": png(rows), "mask": png(LEFT_HALF)}, seed=1)
    assert answer["recoloured_pixels"] == 2
    assert token_ids(answer)[0][:2] == [1, 2]
    grey = np.full((4, 4), 255)
    answer = pixels.generate(image={"png": png(grey, "L"), "mask": png(LEFT_HALF)}, seed=1)
    assert (answer["recoloured_pixels"], token_ids(answer)[0][0]) == (0, 1)


def test_the_answer_may_be_the_picture_itself(pixels: Server, chain: Server) -> None:
    def ask(accept: str, server: Server = pixels, **body: object) -> httpx.Response:
        return server.http.post("/generate", json={"seed": 5, **body}, headers={"accept": accept})

    response = ask("image/png")
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    answer = pixels.generate(seed=5, n=5)
    ids = token_ids(answer)
    assert pixels_of(response.content) == painted(ids[0])
    assert response.headers["x-unmask-seed"] == "5"
    assert response.headers["x-unmask-id"].startswith("gen-")
    assert response.headers["x-unmask-network-evaluations"] == "32"
    sheet = pixels_of(ask("image/png", n=5, columns=2, scale=2).content)
    assert (len(sheet), len(sheet[0])) == (3 * 4 * 2, 2 * 4 * 2)
    small = [row[::2] for row in sheet[::2]]
    for number, each in enumerate(ids):
        top, left = number // 2 * 4, number % 2 * 4
        assert [row[left : left + 4] for row in small[top : top + 4]] == painted(each)
    assert {pixel for row in small[8:] for pixel in row[4:]} == {CLEAR}
    for accept in ("*/*", "application/json", "image/png, application/json"):
        assert token_ids(ask(accept).json()) == ids[:1]
    assert ask("image/png", chain).status_code == 406
    assert ask("image/png, */*", chain).status_code == 200
    for field in ("stream", "detach"):
        refused = pixels.http.post("/generate", json={field: True}, headers={"accept": "image/png"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, field)


def test_a_log_can_be_seen_after_any_step(pixels: Server) -> None:
    stream = pixels.stream(seed=9, n=3, detach=True, sampler={"steps": 6})
    name = f"/generate/{stream.start['id']}"

    def fetch(path: str) -> bytes:
        response = pixels.http.get(name + path)
        assert (response.status_code, response.headers["content-type"]) == (200, "image/png"), response.text
        assert response.headers["cache-control"] == "private, max-age=31536000, immutable"
        return response.content

    ids = token_ids(stream.done)
    painter = Painter(4, 4, 1, PALETTE, code_table(4, 2, 3))
    for step in range(7):
        digits = torch.full((16, 2), 3)
        for unmask in stream.unmasks:
            if unmask["index"] == 2 and unmask["step"] <= step:
                for position, j, digit in unmask["sub_tokens"]:
                    digits[position, j] = digit
        shown = pixels_of(fetch(f"/image.png?index=2&step={step}"))
        assert shown == [[tuple(pixel) for pixel in row] for row in painter.paint(digits).tolist()]
    assert pixels_of(fetch("/image.png?index=1")) == painted(ids[1])
    sheet = pixels_of(fetch("/sheet.png?columns=3&scale=2"))
    assert (len(sheet), len(sheet[0])) == (8, 24)
    assert [row[8:16:2] for row in sheet[::2]] == painted(ids[1])
    with Image.open(io.BytesIO(fetch("/film.png?frames=4&columns=1&scale=3"))) as film:
        assert film.size == (12, 36)
        assert getattr(film, "n_frames", 1) == 4
        assert film.info["loop"] == 0
        film.seek(3)
        last = np.asarray(film.convert("RGBA"))[::3, ::3]
    assert [[tuple(map(int, pixel)) for pixel in row] for row in last[4:8]] == painted(ids[1])
    for path, param in (
        ("/image.png?index=3", "index"),
        ("/image.png?step=7", "step"),
        ("/image.png?scale=0", "scale"),
        ("/image.png?scale=1000", "scale"),
        ("/sheet.png?columns=0", "columns"),
        ("/film.png?frames=1", "frames"),
        ("/film.png?frames=100&scale=64", "scale"),
    ):
        response = pixels.http.get(name + path)
        assert (response.status_code, response.json()["error"]["param"]) == (422, param), path
    assert pixels.http.get("/generate/gen-0/image.png").status_code == 404


def test_pictures_of_text_are_refused(chain: Server) -> None:
    answer = chain.generate(canvas=[None], detach=False, seed=1)
    posted = chain.http.post("/generate", json={"canvas": [None], "detach": True}).json()
    assert chain.http.get(f"/generate/{posted['id']}/image.png").status_code == 422
    assert "image" not in answer["choices"][0]
    for field, value in (
        ("image", {"png": png(painted(GIVEN)), "given_digits": [0]}),
        ("output", "png"),
        ("scale", 2),
        ("columns", 2),
        ("partial_images", 1),
    ):
        response = chain.http.post("/generate", json={field: value, "stream": field == "partial_images"})
        assert (response.status_code, response.json()["error"]["param"]) == (422, field), response.text


def test_a_stream_can_bring_pictures(pixels: Server) -> None:
    stream = pixels.stream(seed=2, n=2, partial_images=3, scale=2, sampler={"steps": 8})
    found = [(event.id, event.data) for event in stream.events if event.name == "image"]
    for index in range(2):
        own = [data for _, data in found if data["index"] == index]
        assert [(data["partial_image_index"], data["step"]) for data in own] == [(0, 2), (1, 4), (2, 6)]
        assert {(data["width"], data["height"]) for data in own} == {(8, 8)}
        masked = [row[::2] for row in pixels_of(base64.b64decode(own[0]["b64_json"]))[::2]]
        assert masked != painted(token_ids(stream.done)[index])
    ids = [event.id for event in stream.events]
    assert ids == sorted(ids)
    assert token_ids(stream.done) == token_ids(pixels.generate(seed=2, n=2, sampler={"steps": 8}))


def test_a_picture_has_a_score_in_bits_per_dimension(pixels: Server, chain: Server) -> None:
    image = {"png": png(painted(GIVEN))}
    answer, same = (
        pixels.http.post("/score", json={**body, "seed": 3, "published_integrand": True}).json()
        for body in ({"image": image}, {"input": GIVEN})
    )
    assert answer["nats"] == same["nats"]
    assert math.isclose(answer["bits_per_dimension"], answer["nats"] / (16 * math.log(2)))
    assert answer["published_integrand"]["is_a_bound"] is False
    half = pixels.http.post("/score", json={"image": image | {"mask": png(LEFT_HALF)}, "seed": 3}).json()
    assert half["tokens"] == 8
    given = [place for place in range(16) if place % 4 < 2]
    assert half["nats"] == pixels.http.post("/score", json={"input": GIVEN, "given": given, "seed": 3}).json()["nats"]
    assert "bits_per_dimension" not in chain.http.post("/score", json={"input": [1, 2], "seed": 1}).json()
    for server, body, param in (
        (chain, {"image": image}, "image"),
        (pixels, {"image": {"png": "%"}}, "image.png"),
        (pixels, {"image": image, "input": GIVEN}, "image"),
        (pixels, {"image": image | {"given_digits": [0]}}, "image"),
        (pixels, {}, "input"),
    ):
        response = server.http.post("/score", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (422, param), error


def test_pictures_are_counted(pixels: Server) -> None:
    before = pixels.metric('unmask_images_total{model="pixels"}')
    pixels.generate(n=3)
    pixels.http.post("/score", json={"input": GIVEN})
    assert pixels.metric('unmask_images_total{model="pixels"}') == before + 3
