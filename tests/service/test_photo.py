"""Pictures of bytes by a U-Net, over HTTP: three tokens a pixel, partly known ones painted, the papers' imputation."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from unmask_diffusion import Painter

from tests.helpers import PICTURES, code_table
from tests.helpers_server import Server, generate_together, token_ids

L = PICTURES.length
PAINTER = Painter(PICTURES.height, PICTURES.width, PICTURES.channels, None, code_table(256, 2))
QUICK = {"steps": 8}


def bytes_of(data: bytes) -> list[int]:
    """Red, green and blue of every pixel, in the order of the tokens."""
    with Image.open(io.BytesIO(data)) as image:
        found: list[int] = np.asarray(image.convert("RGB")).flatten().tolist()
    return found


def picture() -> tuple[list[int], str]:
    ids = [(37 * place) % 256 for place in range(L)]
    file = io.BytesIO()
    Image.fromarray(np.array(ids, dtype=np.uint8).reshape(4, 4, 3)).save(file, "PNG")
    return ids, base64.b64encode(file.getvalue()).decode()


def test_the_card(photo: Server) -> None:
    (card,) = photo.http.get("/v1/models").json()["data"]
    assert card["image"] == {"height": 4, "width": 4, "channels": 3}
    assert (card["architecture"], card["clock"], card["length"]) == ("unet", 3, L)


def test_a_pictures_pixels_are_its_tokens(photo: Server) -> None:
    answer = photo.generate(seed=3, n=2, output="png", sampler=QUICK)
    for choice in answer["choices"]:
        assert bytes_of(base64.b64decode(choice["image"]["b64_json"])) == choice["token_ids"]
    own = token_ids(photo.generate(seed=3, n=2, sampler=QUICK | {"clock": 3}))
    assert own == token_ids(answer), "the bundle's clock is the default"
    assert token_ids(photo.generate(seed=3, n=2, sampler=QUICK | {"clock": 1})) != own


def test_a_picture_does_not_know_its_neighbours(photo: Server) -> None:
    bodies = [{"seed": seed, "sampler": QUICK} for seed in range(12)]
    together = [token_ids(answer) for answer in generate_together(photo.url, bodies)]
    assert [token_ids(photo.generate(**bodies[i])) for i in (0, 11)] == [together[0], together[11]]


def test_given_digits_stay(photo: Server) -> None:
    """The papers' imputation: the high digit of every byte is given, the low one drawn."""
    ids, encoded = picture()
    (drawn,) = token_ids(photo.generate(image={"png": encoded, "given_digits": [0]}, seed=4, sampler=QUICK))
    assert [token >> 4 for token in drawn] == [token >> 4 for token in ids]
    assert drawn != ids
    assert token_ids(photo.generate(image={"png": encoded, "given_digits": [0, 1]}, seed=4)) == [ids]


def test_partly_known_bytes_are_painted(photo: Server) -> None:
    stream = photo.stream(seed=9, detach=True, sampler={"steps": 6, "clock": 1})
    for step in (0, 2, 4, 6):
        digits = torch.full((L, 2), 16)
        for unmask in stream.unmasks:
            if unmask["step"] <= step:
                for position, j, digit in unmask["sub_tokens"]:
                    digits[position, j] = digit
        known = (digits != 16).sum(1)
        assert step in (0, 6) or {0, 1, 2} <= set(known.tolist())
        response = photo.http.get(f"/generate/{stream.start['id']}/image.png?step={step}")
        assert bytes_of(response.content) == PAINTER.paint(digits)[..., :3].flatten().tolist()


def test_a_picture_is_scored(photo: Server) -> None:
    ids, _ = picture()
    body = {"input": ids, "estimator": "integral", "budget": 32, "seed": 1, "published_integrand": True}
    score = photo.http.post("/score", json=body).json()
    assert score["tokens"] == L
    assert score["nats"] > 0
    assert score["published_integrand"]["nats"] != score["nats"]


@pytest.mark.parametrize("schedule", [{"start": 1, "change": -0.2, "power": 2}, {"start": 0.1, "change": 0}])
def test_a_temperature_schedule(photo: Server, schedule: dict[str, float]) -> None:
    sampler = QUICK | {"temperature_schedule": schedule}
    answer = photo.generate(seed=3, sampler=sampler)
    assert token_ids(photo.generate(seed=3, sampler=sampler)) == token_ids(answer)
    assert token_ids(photo.generate(seed=3, sampler=QUICK)) != token_ids(answer)
    if not schedule["change"]:
        assert token_ids(photo.generate(seed=3, temperature=0.1, sampler=QUICK)) == token_ids(answer)


def test_a_schedule_that_turns_negative_is_refused(photo: Server) -> None:
    body = {"sampler": {"temperature_schedule": {"start": 1, "change": -2}}}
    response = photo.http.post("/generate", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (422, "sampler.temperature_schedule.change")
