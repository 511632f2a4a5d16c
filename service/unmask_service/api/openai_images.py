"""OpenAI's form of pictures: `/v1/images/generations`, `/edits` and `/variations` stand for requests of `/generate`."""

import base64
import logging
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field, ValidationError
from sse_starlette import ServerSentEvent
from unmask_diffusion import MAX_STEPS, Painter
from unmask_diffusion.request import MAX_SEED, Strict, Temperature

from unmask_service.api.admission import admit_call
from unmask_service.api.bodies import read_body, read_form
from unmask_service.api.errors import JobError, RefusedError, error_answer, first_complaint, invalid, quoted
from unmask_service.api.followers import AnyFollower, Generation, event
from unmask_service.api.openai_routes import KeyHeader, answer_or_stream
from unmask_service.api.routes import REFUSALS, EventStream, door, whole_answer
from unmask_service.api.schemas import GenerateAnswer, GenerateBody, Message
from unmask_service.api.service import Models, Service
from unmask_service.pictures import MAX_SCALE

logger = logging.getLogger("unmask")

MOST_PARTIAL_IMAGES = 3  # OpenAI's limit
FILES = ("image", "image[]", "mask")
KINDS = {"image_generation": "img", "image_edit": "edit", "image_variation": "var"}  # and how their ids begin
_SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")
_IGNORED = "accepted and ignored"


class ImagesBody(Strict):
    """The body of `POST /v1/images/generations`, and the fields of the other two. null is as if left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "", "size": "auto", "seed": 7}]})

    model: str | None = Field(default=None, description="the name that /v1/models lists; may be left out")
    prompt: str | None = Field(default=None, description='"": image models here are unconditional')
    n: Annotated[int, Field(ge=1)] | None = Field(default=None, description="number of pictures, as in /generate")
    size: str | None = Field(default=None, description="auto, or a whole multiple of the model's, such as 64x64")
    response_format: Literal["b64_json"] | None = None
    output_format: Literal["png"] | None = None
    background: Literal["auto", "opaque", "transparent"] | None = Field(
        default=None, description="opaque or transparent only where all, or some, of the model's colours are"
    )
    quality: Literal["auto"] | None = None
    moderation: Literal["auto"] | None = None
    output_compression: Annotated[int, Field(ge=100, le=100)] | None = None
    user: Any = Field(default=None, description=_IGNORED)
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = Field(
        default=None, description="extension: the same request with the same seed gives the same pictures"
    )
    num_inference_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = Field(
        default=None, description="extension: network evaluations of a picture, sampler.steps of /generate; null: exact"
    )
    temperature: Temperature | None = Field(default=None, description="extension, as in /generate")
    stream: bool | None = Field(default=None, description="true: Server-Sent Events")
    partial_images: Annotated[int, Field(ge=0, le=MOST_PARTIAL_IMAGES)] | None = Field(
        default=None, description="for a stream: pictures on the way"
    )

    def request(self, painter: Painter, image: dict[str, Any] | None = None) -> GenerateBody:
        """The request of `/generate` that it stands for. Raises RefusedError."""
        if self.prompt:
            raise invalid('prompt must be "": this model is unconditional and draws what it likes', "prompt")
        if self.partial_images and not self.stream:
            raise invalid("partial_images are events of a stream: set stream", "partial_images")
        self._check_background(painter)
        values: dict[str, Any] = {name: getattr(self, name) for name in ("model", "n", "seed", "temperature", "stream")}
        values |= {"partial_images": self.partial_images, "scale": self._scale(painter), "image": image}
        if self.num_inference_steps is not None:
            values["sampler"] = {"steps": self.num_inference_steps}
        given = {name: value for name, value in values.items() if value is not None}
        try:
            return GenerateBody.model_validate(given | {"output": "png"})
        except ValidationError as error:
            raise first_complaint(error.errors()) from error

    def _scale(self, painter: Painter) -> int:
        if self.size in (None, "auto"):
            return 1
        found = _SIZE.fullmatch(self.size or "")
        width, height = (int(found[1]), int(found[2])) if found else (0, 0)
        scale = width // painter.width
        if not 1 <= scale <= MAX_SCALE or (width, height) != (scale * painter.width, scale * painter.height):
            raise invalid(
                f"size is {quoted(self.size or '')}; it must be auto, or {painter.width}x{painter.height} or up to "
                f"{MAX_SCALE} times that",
                "size",
            )
        return scale

    def _check_background(self, painter: Painter) -> None:
        clear = any(colour[3] < 255 for colour in painter.palette or ())
        if self.background == "transparent" and not clear:
            raise invalid("background cannot be transparent: this model has no transparent colour", "background")
        if self.background == "opaque" and clear:
            raise invalid("background cannot be opaque: this model has transparent colours", "background")


class ImageData(Message):
    """A picture."""

    b64_json: str = Field(description="a PNG file in base64")


class ImagesUsage(Message):
    """Numbers of tokens, by OpenAI's names."""

    input_tokens: int = Field(description="number of given tokens")
    input_tokens_details: dict[str, int]
    output_tokens: int
    total_tokens: int


class ImagesAnswer(Message):
    """The answer of the endpoints."""

    created: int = Field(description="Unix time in seconds")
    data: list[ImageData]
    size: str = Field(description="width x height of each picture, in pixels")
    output_format: Literal["png"] = "png"
    usage: ImagesUsage
    # what `/generate` tells beside it
    id: str
    model: str
    seed: int
    network_evaluations: int
    recoloured_pixels: int | None = Field(default=None, exclude_if=lambda value: value is None)


class StreamedImage(Message):
    """The data of an event."""

    type: str
    b64_json: str
    created_at: int
    size: str
    output_format: Literal["png"] = "png"
    index: int = Field(description="number of the picture")
    partial_image_index: int | None = Field(default=None, exclude_if=lambda value: value is None)
    usage: ImagesUsage | None = Field(default=None, exclude_if=lambda value: value is None)


class ImagesCall:
    """A client that waits for pictures."""

    def __init__(self, follower: AnyFollower, kind: str) -> None:
        assert isinstance(follower, Generation)  # noqa: S101 — for the type checker
        self.follower, self.kind, self.service = follower, kind, follower.service

    async def answer(self) -> ImagesAnswer:
        """The answer, once the job has ended. Raises JobError."""
        answer = await self.follower.answer()
        return ImagesAnswer(
            created=answer.created,
            data=[ImageData(b64_json=each.image.b64_json) for each in answer.choices if each.image is not None],
            size=self._size(answer),
            usage=usage_of(answer),
            id=answer.id,
            model=answer.model,
            seed=answer.sampling.seed,
            network_evaluations=answer.sampling.network_evaluations,
            recoloured_pixels=answer.recoloured_pixels,
        )

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Yield pictures on the way, and each at its end. A failure is an event too."""
        created, position = int(self.follower.job.submitted_at), 0
        try:
            async for position, entry in self.follower.follow():
                for each in await self.follower.pictures(entry):
                    yield self._event(
                        "partial_image",
                        position,
                        b64_json=each.b64_json,
                        created_at=created,
                        size=f"{each.width}x{each.height}",
                        index=each.index,
                        partial_image_index=each.partial_image_index,
                    )
            answer = await self.follower.read_answer()
            for choice in answer.choices:
                if choice.image is not None:
                    yield self._event(
                        "completed",
                        position,
                        b64_json=choice.image.b64_json,
                        created_at=created,
                        size=self._size(answer),
                        index=choice.index,
                        usage=usage_of(answer),
                    )
        except JobError as error:
            yield event("error", position + 1, error_answer(error))
        except Exception as error:
            logger.exception("the pictures of %s cannot be made", self.follower.job.id)
            yield event("error", position + 1, error_answer(error))

    async def leave(self) -> None:
        """The client has its answer or has disconnected."""
        await self.follower.leave()

    def _event(self, name: str, position: int, **values: Any) -> ServerSentEvent:  # noqa: ANN401 — of StreamedImage
        kind = f"{self.kind}.{name}"
        return event(kind, position, StreamedImage(type=kind, output_format="png", **values))

    def _size(self, answer: GenerateAnswer) -> str:
        image = answer.choices[0].image
        return "" if image is None else f"{image.width}x{image.height}"


def usage_of(answer: GenerateAnswer) -> ImagesUsage:
    """The tokens of an answer, by OpenAI's names."""
    given, returned = answer.usage.prompt_tokens, answer.usage.completion_tokens
    details = {"image_tokens": given, "text_tokens": 0}
    return ImagesUsage(
        input_tokens=given, input_tokens_details=details, output_tokens=returned, total_tokens=given + returned
    )


def openai_image_routes(models: Models) -> APIRouter:
    """The routes of pictures in OpenAI's form."""
    router = APIRouter(prefix="/v1/images", tags=["OpenAI"], responses=REFUSALS | answer_or_stream(ImagesAnswer))
    limit, parsers = models.max_body_bytes, models.shared.parsers

    @router.post("/generations", response_model=None, summary="Generate pictures")
    async def generations(request: Request, idempotency_key: KeyHeader = None) -> Response:
        """Draw pictures."""
        body = await read_body(request, ImagesBody, limit, parsers)
        return await reply(request, body, None, "image_generation", idempotency_key)

    @router.post("/edits", response_model=None, summary="Complete a picture")
    async def edits(request: Request, idempotency_key: KeyHeader = None) -> Response:
        """Draw the pixels of a picture at which its mask is transparent. The body is multipart/form-data."""
        fields, files = await read_form(request, limit, FILES)
        body, image = edit_of(fields, files)
        return await reply(request, body, image, "image_edit", idempotency_key)

    @router.post("/variations", response_model=None, summary="Draw a picture's finer digits again")
    async def variations(request: Request, idempotency_key: KeyHeader = None) -> Response:
        """Keep the first digit of every pixel of a picture, and draw the others. The body is multipart/form-data."""
        fields, files = await read_form(request, limit, FILES[:2])
        body, image = edit_of(fields, files)
        return await reply(request, body, image | {"given_digits": [0]}, "image_variation", idempotency_key)

    async def reply(
        request: Request,
        body: ImagesBody,
        image: dict[str, Any] | None,
        kind: str,
        idempotency_key: str | None,
    ) -> Response:
        named = Named(**dict(body), edited=image)
        service, key = await door(models, request, body.model, named, idempotency_key)
        asked = body.request(painter_of(service), image)
        (follower,) = await admit_call(service, KINDS[kind], [asked], key)
        call = ImagesCall(follower, kind)
        return EventStream(call, call.events()) if body.stream else await whole_answer(request, call)

    return router


class Named(ImagesBody):
    """A body with its files, for the idempotency key."""

    edited: dict[str, Any] | None = None


def painter_of(service: Service) -> Painter:
    """How a model's canvases are painted. Raises RefusedError: they are no pictures."""
    painter = service.gate.pass_through().model.image
    if painter is None:
        message = f"model: {service.card.id!r} makes no pictures: its canvases are text"
        raise RefusedError("no_picture", message, "model")
    return painter


def edit_of(fields: dict[str, str], files: dict[str, bytes]) -> tuple[ImagesBody, dict[str, Any]]:
    """The fields of a form, which are all text, and its picture and mask. Raises RefusedError."""
    found = [name for name in ("image", "image[]") if name in files]
    if len(found) != 1:
        raise invalid("image: there must be one file of this name, a PNG", "image")
    image: dict[str, Any] = {"png": base64.b64encode(files[found[0]]).decode()}
    if "mask" in files:
        image["mask"] = base64.b64encode(files["mask"]).decode()
    try:
        return ImagesBody.model_validate_strings(fields), image
    except ValidationError as error:
        raise first_complaint(error.errors()) from error
