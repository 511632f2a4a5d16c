"""Pictures through OpenAI's own client."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from PIL import Image

from tests.helpers_server import Server, token_ids
from tests.service.test_pictures import GIVEN, LEFT_HALF, painted, pixels_of, png

SIZES = "4x4 or up to 64 times that"


@pytest.fixture(scope="module")
def client(pixels: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=pixels.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def shown(b64_json: str | None) -> list[list[tuple[int, ...]]]:
    assert b64_json is not None
    return pixels_of(base64.b64decode(b64_json))


def file_of(rows: object) -> tuple[str, bytes, str]:
    return "picture.png", base64.b64decode(png(rows)), "image/png"


def test_pictures_are_generated(client: openai.OpenAI, pixels: Server) -> None:
    extra = {"seed": 11, "num_inference_steps": 6}
    answer = client.images.generate(prompt="", n=3, size="8x8", response_format="b64_json", extra_body=extra)
    same = pixels.generate(seed=11, n=3, sampler={"steps": 6})
    assert answer.data is not None
    for image, ids in zip(answer.data, token_ids(same), strict=True):
        assert [row[::2] for row in shown(image.b64_json)[::2]] == painted(ids)
    assert (answer.size, answer.output_format) == ("8x8", "png")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (0, 48, 48)
    assert answer.model_extra is not None
    assert (answer.model_extra["seed"], answer.model_extra["network_evaluations"]) == (11, 18)


def test_pictures_are_streamed(client: openai.OpenAI, pixels: Server) -> None:
    stream = client.images.generate(prompt="", stream=True, partial_images=2, extra_body={"seed": 4})
    *partial, last = list(stream)
    assert [each.type for each in partial] == ["image_generation.partial_image"] * 2
    assert [each.partial_image_index for each in partial if each.type == "image_generation.partial_image"] == [0, 1]
    assert last.type == "image_generation.completed"
    assert shown(last.b64_json) == painted(token_ids(pixels.generate(seed=4))[0])
    assert last.usage.total_tokens == 16
    assert shown(partial[0].b64_json) != shown(partial[1].b64_json)


def test_a_picture_is_edited(client: openai.OpenAI, pixels: Server) -> None:
    image, mask = file_of(painted(GIVEN)), file_of(LEFT_HALF)
    answer = client.images.edit(image=image, mask=mask, prompt="", n=2, extra_body={"seed": 6})
    same = pixels.generate(image={"png": png(painted(GIVEN)), "mask": png(LEFT_HALF)}, seed=6, n=2)
    assert answer.data is not None
    assert [shown(each.b64_json) for each in answer.data] == [painted(ids) for ids in token_ids(same)]
    assert answer.usage is not None
    assert answer.usage.input_tokens == 8
    stream = client.images.edit(image=[image], mask=mask, prompt="", stream=True, extra_body={"seed": 6})
    (last,) = stream
    assert last.type == "image_edit.completed"
    assert shown(last.b64_json) == painted(token_ids(same)[0])


def test_a_picture_is_varied(client: openai.OpenAI, pixels: Server) -> None:
    """Every pixel keeps its first digit, and the rest is drawn."""
    picture, mask = file_of(painted(GIVEN)), file_of(LEFT_HALF)
    with pytest.warns(DeprecationWarning, match="deprecated"):  # OpenAI's own endpoint goes with its last model
        answer = client.images.create_variation(
            image=picture, n=3, response_format="b64_json", extra_body={"seed": 6, "size": "8x8"}
        )
    same = pixels.generate(image={"png": png(painted(GIVEN)), "given_digits": [0]}, seed=6, n=3)
    assert answer.data is not None
    assert [[row[::2] for row in shown(each.b64_json)[::2]] for each in answer.data] == [
        painted(ids) for ids in token_ids(same)
    ]
    assert len({tuple(ids) for ids in token_ids(same)}) > 1
    refused: list[tuple[dict[str, Any], dict[str, str], str]] = [
        ({"image": picture, "mask": mask}, {}, "mask"),
        ({"image": picture}, {"prompt": "a cat"}, "prompt"),
        ({"image": picture}, {"size": "10x10"}, "size"),
        ({"image": ("a.png", b"nonsense", "image/png")}, {}, "image.png"),
        ({"photo": picture}, {}, "photo"),
    ]
    for files, fields, param in refused:
        response = pixels.http.post("/v1/images/variations", data=fields, files=files)
        assert (response.status_code, response.json()["error"]["param"]) == (422, param), response.text


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": "a cat"}, "prompt", 'prompt must be ""'),
    ({"size": "10x10"}, "size", SIZES),
    ({"size": "4x8"}, "size", SIZES),
    ({"size": "400x400"}, "size", SIZES),
    ({"size": "large"}, "size", SIZES),
    ({"response_format": "url"}, "response_format", "b64_json"),
    ({"output_format": "jpeg"}, "output_format", "png"),
    ({"background": "opaque"}, "background", "has transparent colours"),
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": 65}, "n", "64"),
    ({"num_inference_steps": 0}, "num_inference_steps", "greater than or equal to 1"),
    ({"partial_images": 4, "stream": True}, "partial_images", "less than or equal to 3"),
    ({"partial_images": 2}, "partial_images", "set stream"),
    ({"quality": "hd"}, "quality", "auto"),
    ({"style": "vivid"}, "style", "there is no such field"),
]


def test_what_cannot_be_had_is_refused_by_name(pixels: Server) -> None:
    for body, param, complaint in REFUSED:
        response = pixels.http.post("/v1/images/generations", json={"prompt": "", **body})
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (422, param), (body, error)
        assert complaint in error["message"], error
    assert pixels.http.post("/v1/images/generations", json={"prompt": "", "model": "no"}).status_code == 404


def test_text_models_make_no_pictures(chain: Server) -> None:
    response = chain.http.post("/v1/images/generations", json={"prompt": ""})
    assert (response.status_code, response.json()["error"]["param"]) == (422, "model")


def test_bad_forms_are_refused(pixels: Server) -> None:
    picture = file_of(painted(GIVEN))
    wide = io.BytesIO()
    Image.new("RGBA", (8, 4)).save(wide, "PNG")
    form: list[tuple[dict[str, str], dict[str, Any], str | None, int]] = [
        ({"prompt": ""}, {}, "image", 422),
        ({"prompt": "x"}, {"image": picture}, "prompt", 422),
        ({"n": "many"}, {"image": picture}, "n", 422),
        ({"colour": "red"}, {"image": picture}, "colour", 422),
        ({"mask": "text"}, {"image": picture}, "mask", 422),
        ({}, {"image": picture, "photo": picture}, "photo", 422),
        ({}, {"image": ("a.png", wide.getvalue())}, "image.png", 422),
        ({}, {"image": picture, "mask": ("a.png", b"nonsense")}, "image.mask", 422),
        ({}, {"image": picture, "image[]": picture}, "image", 422),
        ({}, {"image": ("a.png", bytes(2 << 20))}, None, 413),
    ]
    for fields, files, param, status in form:
        response = pixels.http.post("/v1/images/edits", data=fields, files=files or {"mask": picture})
        assert (response.status_code, response.json()["error"]["param"]) == (status, param), response.text
    for content_type in ("application/json", "multipart/form-data", "multipart/form-data; boundary=x"):
        response = pixels.http.post("/v1/images/edits", content=b"{}", headers={"content-type": content_type})
        assert response.status_code in (400, 422), response.text
