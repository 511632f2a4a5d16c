"""What goes over the wire: bodies, answers, events, errors. The requests themselves come from `unmask_diffusion`."""

from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from unmask_diffusion import DEFAULT_MAX_TOKENS, MAX_SAMPLES, Colour, GenerationRequest
from unmask_diffusion.request import Strict

from unmask_service.broker import State
from unmask_service.pictures import MAX_SCALE

Request = TypeVar("Request", bound=BaseModel)
Token = tuple[int, int, str | None]  # position, token id, text; U+FFFD for bytes that are a part of a character
Digit = tuple[int, int, int]  # position, j, digit
Class = tuple[int, str | None, float]  # token id, text, probability or log-probability
Candidates = tuple[int, int, list[Class]]  # position, classes left, the likeliest of them

ABOUT_TOKENS = (
    "[position, token_id, text]; the text of the token alone: U+FFFD stands for bytes that are only a part of a "
    "character; null for a model without a tokenizer"
)

MAX_DEADLINE_MS = 86_400_000  # a day
MAX_CANDIDATES = 16
MAX_PARTIAL_IMAGES = 16


class ImageInput(Strict):
    """A picture to complete."""

    png: str = Field(
        description="a PNG file in base64, of the model's size or a whole multiple of it; colours outside the palette "
        "go to the nearest, and the answer counts them in `recoloured_pixels`"
    )
    mask: str | None = Field(
        default=None,
        description="a PNG file of the same size with an alpha channel, in base64: where it is transparent, pixels are "
        "generated. Left out: where the picture itself is transparent, or everywhere with given_digits",
    )
    given_digits: Annotated[list[Annotated[int, Field(ge=0, le=63)]], Field(max_length=64)] | None = Field(
        default=None, description="keep these digits (j = 0, 1 …) of the pixels that are generated, such as [0]"
    )


class GenerateBody(GenerationRequest):
    """The body of `POST /generate`: the request, the model that it is for, and the form of the answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "Once upon a time", "seed": 7}]})
    default_max_tokens: ClassVar[int] = DEFAULT_MAX_TOKENS

    model: str | None = Field(default=None, description="the name that /v1/models lists; may be left out")
    stream: bool = Field(default=False, description="true: Server-Sent Events; false: one JSON object at the end")
    deadline_ms: Annotated[int, Field(ge=1, le=MAX_DEADLINE_MS)] | None = Field(
        default=None,
        description="the time in which the answer should be complete, in milliseconds: the server takes as many groups "
        "(at most `sampler.steps`) as should fit, and `sampling.steps` says how many; first_hitting only",
    )
    detach: bool = Field(
        default=False,
        description="true: the generation goes on when its client leaves, and can be read under /generate/{id}; "
        "without `stream` the answer is 202 with its status, at once",
    )
    candidates: Annotated[int, Field(ge=0, le=MAX_CANDIDATES)] = Field(
        default=0,
        description="for a stream: with each step, for each token that is partly revealed after it, the number of "
        "classes that its digits leave, and so many of the likeliest; 0: none",
    )

    image: ImageInput | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # such bodies are written without the field, as before it existed
        description="for an image model, instead of canvas: a picture to complete",
    )
    output: Literal["ids", "png"] = Field(
        default="ids",
        exclude_if=lambda value: value == "ids",
        description="for an image model: png adds a picture in base64 to each choice",
    )
    scale: Annotated[int, Field(ge=1, le=MAX_SCALE)] = Field(
        default=1,
        exclude_if=lambda value: value == 1,
        description="for an image model: each pixel of the pictures so many times larger, nearest neighbour",
    )
    columns: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="for an image model and `Accept: image/png`: columns of the contact sheet of n pictures (default: "
        "as square as may be)",
    )
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES)] = Field(
        default=0,
        exclude_if=lambda value: value == 0,
        description="for an image model's stream: so many events `image` of each sample, evenly spread",
    )

    @model_validator(mode="after")
    def _image_stands_alone(self) -> Self:
        others = [name for name in ("canvas", "sub_tokens", "prompt", "suffix", "max_tokens") if getattr(self, name)]
        if self.image is not None and others:
            raise ValueError(f"image takes the place of canvas, sub_tokens and prompt; leave out {others[0]}")
        if self.partial_images and not (self.stream or self.detach):
            raise ValueError("partial_images are events of a stream: set stream or detach")
        return self

    @model_validator(mode="after")
    def _candidates_are_for_streams(self) -> Self:
        if self.candidates and not (self.stream or self.detach):
            raise ValueError("candidates are part of a stream's events: set stream or detach")
        return self

    @model_validator(mode="after")
    def _deadlines_are_for_groups(self) -> Self:
        if self.deadline_ms is not None and not self.sampler.takes_any_steps:
            raise ValueError(
                "deadline_ms chooses the number of steps: only first_hitting, and confidence, margin and entropy with "
                "cut even, support it"
            )
        return self

    def request(self) -> GenerationRequest:
        """The request without the fields of the transport."""
        return only(GenerationRequest, self)


def only(kind: type[Request], body: Request) -> Request:
    """The fields of a body that its base class `kind` has; they are checked already, so not checked again."""
    values = {name: getattr(body, name) for name in kind.model_fields}
    return kind.model_construct(_fields_set=body.model_fields_set & kind.model_fields.keys(), **values)


class Message(BaseModel):
    """The base of everything that the server sends."""

    model_config = ConfigDict(frozen=True)


class ImageBlock(Message):
    """How the canvases of an image model are painted: position (row · width + column) · channels + channel.

    A pixel of which some digits are revealed is painted as the mean of the colours that they leave.
    """

    height: int = Field(description="pixels")
    width: int = Field(description="pixels")
    channels: int = Field(description="tokens of a pixel")
    palette: list[Colour] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="the colour of each token id: [red, green, blue, alpha]; left out: tokens are bytes of red, green "
        "and blue (3 channels), of grey (1), or twelve bits of the 24 (2)",
    )


def _of_each_token(description: str) -> Any:  # noqa: ANN401 — as pydantic's Field
    """A field that is a list with an entry for each of `token_ids`."""
    return Field(description=f"for each of token_ids: {description}")


Warnings = Annotated[
    list[str],
    Field(
        description="present if more than a quarter, and at least 2, of the given tokens of the prompt, the suffix or "
        "the canvas are outside what the model was trained on: a sentence for each",
        exclude_if=lambda value: not value,
    ),
]


class LogProbs(Message):
    """Log-probabilities of a sample's tokens, in nats: the first four fields are those of OpenAI's completions.

    They are the model's own, at temperature 1 and without top_k and top_p, each given what was known at its reveal.
    """

    tokens: list[str] = _of_each_token(
        "its text; of a character that several tokens share, the last one has the text. token_id:N without a tokenizer"
    )
    token_logprobs: list[float | None] = _of_each_token("the sum of its digits' numbers; null: it was given")
    top_logprobs: list[dict[str, float] | None] = _of_each_token(
        "the likeliest classes before anything of it was revealed, by their texts; of classes with one text the "
        "likeliest; null: it was given, or `logprobs` is 0"
    )
    text_offset: list[int] = _of_each_token("characters of `text` before it")
    sub_token_logprobs: list[list[float | None]] = _of_each_token(
        "of each of its digits, when it was revealed; null: it was given"
    )
    likeliest: list[list[Class]] = _of_each_token("what top_logprobs has, as [token_id, text, log-probability]")


RecolouredPixels = Annotated[
    int | None,
    Field(
        description="with an image in the request: number of its given pixels whose colour is none of the model's, and "
        "became the nearest",
        exclude_if=lambda value: value is None,
    ),
]


class PngImage(Message):
    """A picture."""

    b64_json: str = Field(description="a PNG file, RGB or RGBA of 8 bits, in base64")
    width: int = Field(description="pixels")
    height: int


class Choice(Message):
    """One sample of the answer."""

    index: int = Field(description="number of the sample")
    text: str | None = Field(description="the generated tokens as text; null for a model without a tokenizer")
    token_ids: list[int] = Field(description="the generated tokens, cut before the model's end token")
    finish_reason: Literal["length", "stop"] = Field(description="stop: the model's end token cut the text")
    logprobs: LogProbs | None = Field(
        default=None, description="with `logprobs` in the request", exclude_if=lambda value: value is None
    )
    log_probability: float | None = Field(
        default=None,
        description="with `logprobs` in the request: log-probability of all that was revealed, along its order; it "
        "includes an end token and what comes after it",
        exclude_if=lambda value: value is None,
    )
    image: PngImage | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # answers without pictures are as before they existed
        description="with output png: the sample as a picture",
    )


class Usage(Message):
    """Numbers of tokens."""

    prompt_tokens: int = Field(description="number of given tokens, counted once")
    completion_tokens: int = Field(description="number of returned tokens, summed over the samples")
    total_tokens: int


class Sampling(Message):
    """The work of the sampler, summed over the samples."""

    seed: int = Field(description="seed of the request, or the one that was drawn for it")
    sub_tokens: int = Field(description="number of sub-tokens unmasked")
    network_evaluations: int = Field(description="number of network evaluations that were done")
    rounds: int = Field(
        description="number of evaluations one after the other: fewer than network_evaluations where speculation helped"
    )
    idle_steps: int = Field(
        description="number of time steps of the plan that would reveal nothing; they were skipped. With "
        "sampler.block_length those of blocks after the end of a sample count too"
    )
    steps: int | None = Field(
        description="steps of the sampler, as requested or as chosen for the deadline; null: exact"
    )
    evaluations_saved: int | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # answers without blocks are as before it existed
        description="with sampler.block_length or sampler.bound: number of planned network evaluations that were not "
        "needed, because the sample had ended in an earlier block, or an evaluation had revealed several sub-tokens",
    )


class Timings(Message):
    """Milliseconds from the moment at which the request entered the queue."""

    queue_ms: float
    first_unmask_ms: float | None = Field(description="null where there was nothing to unmask")
    total_ms: float


class GenerateAnswer(Message):
    """The answer without `stream`, and the data of the event `done`."""

    id: str
    model: str
    created: int = Field(description="Unix time in seconds")
    choices: list[Choice]
    usage: Usage
    sampling: Sampling
    timings: Timings
    fingerprint: str = Field(description="the kind of machine and arithmetic: equal fingerprints give equal tokens")
    warnings: Warnings = []
    recoloured_pixels: RecolouredPixels = None


class ImageEvent(PngImage):
    """The data of the event `image`: a sample on its way, for clients that cannot paint."""

    index: int = Field(description="number of the sample")
    partial_image_index: int = Field(description="from 0; there are as many as the request has partial_images")
    step: int = Field(description="number of evaluations of the sample that are done")


class ErrorObject(Message):
    """What went wrong."""

    message: str = Field(description="names the field and its limit")
    type: str
    param: str | None = Field(description="the field that is wrong")
    code: str | None = Field(description="a short name of the fault for programs")


class JobStatus(Message):
    """Where a generation or a score is."""

    id: str
    model: str
    created: int = Field(description="Unix time in seconds")
    state: State
    progress: float = Field(description="share of the planned network evaluations that are done or needless, 0 … 1")
    network_evaluations: int = Field(
        description="number of planned network evaluations, all samples; with sampler.bound the most that there can be"
    )
    network_evaluations_done: int = Field(
        description="number of them that are done, or that an end token in a block has made needless"
    )
    eta_ms: int | None = Field(default=None, description="milliseconds until the expected end; null where unknown")
    error: ErrorObject | None = Field(default=None, description="why it failed")


class GenerationStatus(JobStatus):
    """Where a generation is; once it has finished, with all that `POST /generate` answers."""

    choices: list[Choice] | None = Field(default=None, description="this field and the next ones: once it has finished")
    usage: Usage | None = None
    sampling: Sampling | None = None
    timings: Timings | None = None
    fingerprint: str | None = None
    warnings: Warnings = []
    recoloured_pixels: RecolouredPixels = None


class QueueState(Message):
    """The requests in the queue and in engines."""

    running: int = Field(description="number of running requests")
    waiting: int = Field(description="number of waiting requests")
    network_evaluations: int = Field(description="number of network evaluations that they still need")


class PlanAnswer(Message):
    """What a request would cost, and when it would end if it were queued now."""

    model: str
    length: int = Field(description="length of the whole canvas in tokens")
    samples: int
    masked: int = Field(description="number of sub-tokens to unmask, all samples")
    network_evaluations: int = Field(
        description="number of network evaluations, all samples; with sampler.block_length at most: an end token makes "
        "later blocks needless"
    )
    upper_bound: bool | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="true: network_evaluations are the most that there can be, since sampler.bound decides how many "
        "sub-tokens an evaluation reveals; left out otherwise",
    )
    evaluations_per_sample: list[int]
    idle_steps: int = Field(description="number of time steps that would reveal nothing and are skipped, all samples")
    steps: int | None = Field(description="steps of the sampler, as requested or as chosen for the deadline")
    seed: int
    eta_ms: int | None
    queue: QueueState


class StartEvent(Message):
    """The data of the event `start`."""

    id: str
    model: str
    length: int = Field(description="length of the whole canvas in tokens")
    sub_tokens_per_token: int
    base: int
    masked: int = Field(description="number of sub-tokens to unmask, all samples")
    network_evaluations: int = Field(description="number of planned network evaluations, all samples")
    eta_ms: int | None = Field(
        description="milliseconds until `done` is expected; null while no engine has said how fast it is"
    )
    seed: int
    image: ImageBlock | None = Field(
        default=None, description="as in /v1/models; left out where canvases are no pictures"
    )
    canvas: list[list[Token]] = Field(description=f"for each sample the given tokens: {ABOUT_TOKENS}")
    sub_tokens: list[Digit] = Field(
        default=[],
        description="[position, j, digit] of every digit that is given of a token which is not wholly given, in every "
        "sample; left out where there are none",
    )


class UnmaskEvent(Message):
    """The data of the event `unmask`: what one network evaluation revealed in one sample."""

    index: int = Field(description="number of the sample")
    step: int = Field(description="number of this evaluation of the sample, from 1")
    steps: int = Field(
        description="number of planned evaluations of the sample; with sampler.block_length or sampler.bound `done` "
        "may come earlier"
    )
    sub_tokens: list[Digit] = Field(description="[position, j, digit] of every sub-token revealed")
    tokens: list[Token] = Field(description=f"the tokens that this step completed: {ABOUT_TOKENS}")
    masked: list[tuple[int, int]] = Field(
        default=[],
        description="with the sampler remasking: [position, j] of every sub-token that is masked again after this "
        "step; left out where there are none",
    )
    log_probabilities: list[float] = Field(
        default=[], description="with `logprobs` in the request: of every one of sub_tokens, in nats"
    )
    likeliest: list[tuple[int, list[Class]]] = Field(
        default=[],
        description="with `logprobs` above 0 in the request: [position, [[token_id, text, log-probability], …]] of "
        "every token of which this step reveals the first digits: its likeliest classes before that",
    )
    candidates: list[Candidates] = Field(
        default=[],
        description="with `candidates` in the request: [position, classes left, [[token_id, text, probability], …]] of "
        "every token that this step touched and that is still partly masked",
    )


class ErrorAnswer(Message):
    """The body of every answer that is not 2xx, and the data of the event `error`."""

    error: ErrorObject


class Status(Message):
    """The state of the process."""

    status: Literal["ok", "ready"]


class Limits(Message):
    """The limits of a request to this server."""

    max_samples: int = Field(description="the largest n")
    max_steps: int = Field(description="the largest sampler.steps")
    max_temperature: float
    max_body_bytes: int
    max_requests: int = Field(description="number of requests that may wait or run")
    max_evaluations: int | None = Field(
        description="number of network evaluations that may wait or run, except for a single request; null: no bound"
    )
    max_deadline_ms: int = Field(description="the largest deadline_ms")
    max_candidates: int = Field(description="the largest candidates")
    max_budget: int = Field(description="the largest budget of a score")


class ModelCard(Message):
    """A model that is served, and what a client needs to know of it."""

    id: str = Field(description="the model's name")
    object: Literal["model"] = "model"
    created: int = Field(description="Unix time in seconds at which this server began to serve it")
    owned_by: Literal["unmask"] = "unmask"
    root: str = Field(description="repository of its source on the hub, or the model's name")
    parent: None = None
    architecture: str
    length: int = Field(description="the longest canvas, in tokens")
    vocabulary_size: int = Field(description="token ids are below this")
    sub_tokens_per_token: int
    base: int = Field(description="digits are below this; it is the mask id too")
    canvas: Literal["as_requested", "full"] = Field(description="full: the network always sees the whole length")
    tokenizer: bool = Field(description="whether it takes and gives text; else token ids only")
    clock: int = Field(
        default=1,
        exclude_if=lambda value: value == 1,
        description="the sampler.clock of requests that have none; left out: 1",
    )
    image: ImageBlock | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="how canvases are painted; left out where they are no pictures",
    )
    codes: list[int] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="of an image model whose digits are not those of its token ids: for each id the number in base b "
        "that they write",
    )
    end_token_id: Annotated[int, Field(ge=0)] | None
    end_token_ids: list[int] = Field(
        default=[],
        exclude_if=lambda value: len(value) < 2,
        description="the tokens that end a text, where there are several; the first is end_token_id",
    )
    description: str | None = Field(description="what the model is, in a sentence")
    examples: list[str] = Field(description="prompts that show what it can do")
    generation: dict[str, Any] | None = Field(
        description="settings that the model's author recommends, as fields of a request (temperature, top_p, top_k, "
        "sampler); the API never applies them by itself: what a request leaves out has the default above"
    )
    limits: Limits


class ModelList(Message):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
