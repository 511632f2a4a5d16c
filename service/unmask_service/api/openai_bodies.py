"""The bodies of the OpenAI-compatible endpoints, and the requests of `POST /generate` that they stand for.

A field that means nothing here is accepted with its neutral value alone, so that no request is served as if it had
said less.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator
from unmask_diffusion import Sampler
from unmask_diffusion.request import (
    MAX_LOGPROBS,
    MAX_SEED,
    MAX_STOPS,
    Canvas,
    LogitBias,
    MinP,
    Strict,
    Temperature,
    TokenIds,
    TopP,
)
from unmask_model_store import TextSettings

from unmask_service.api.errors import first_complaint
from unmask_service.api.schemas import MAX_CANDIDATES, MAX_DEADLINE_MS, GenerateBody
from unmask_service.api.score_schemas import ScoreBody

MOST_PROMPTS = 128
COMPLETION_TOKENS = 16
CHAT_TOKENS = 128
# fields that `GenerateBody` has too; those that are null are left out
SAME_FIELDS: tuple[str, ...] = (
    "model",
    "n",
    "temperature",
    "top_p",
    "min_p",
    "seed",
    "stop",
    "ignore_eos",
    "sampler",
    "deadline_ms",
)
SAME_FIELDS += ("stream", "candidates", "canvas", "logit_bias")

Zero = Annotated[float, Field(ge=0, le=0)]
One = Annotated[float, Field(ge=1, le=1)]
Stop = str | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MAX_STOPS)]
Nothing = Annotated[list[Any], Field(max_length=0)]
MaxTokens = Annotated[int, Field(ge=1, le=2**31 - 1)]
IGNORED = "accepted and ignored"


class StreamOptions(Strict):
    """What a stream tells beside the text."""

    include_usage: bool | None = Field(default=None, description="one more chunk at the end, with `usage`")
    continuous_usage_stats: bool | None = Field(default=None, description="`usage` so far in every chunk")


def text_alone(value: dict[str, Any]) -> dict[str, Any]:
    """The one response format."""
    if value != {"type": "text"}:
        raise ValueError('the only format is {"type": "text"}')
    return value


class OpenAIBody(Strict):
    """The fields that completions and chat completions share. null is as if the field was left out."""

    model: str | None = Field(default=None, description="the name that /v1/models lists; may be left out")
    n: int | None = Field(default=None, description="samples of each prompt, as in /generate")
    temperature: Temperature | None = Field(default=None, description="0 takes the most probable class; null: 1")
    top_p: TopP | None = Field(default=None, description="nucleus; null: 1, off")
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = Field(
        default=None, description="extension; null, -1 and 0 are off"
    )
    min_p: MinP | None = Field(default=None, description="extension, as in /generate; null and 0 are off")
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = Field(
        default=None, description="the same request with the same seed gives the same text; null: drawn"
    )
    stop: Stop | None = Field(default=None, description="a string, or up to 16: the text is cut before the first")
    stream: bool | None = Field(default=None, description="true: Server-Sent Events with growing text")
    stream_options: StreamOptions | None = None
    diffusing: bool | None = Field(
        default=None,
        description="extension, for a stream: each chunk has the whole text so far, with a placeholder for each "
        "masked token, in place of a piece of text",
    )
    logit_bias: LogitBias | None = Field(default=None, description="as in /generate")
    ignore_eos: bool | None = Field(default=None, description="true: the text is not cut at the model's end token")
    sampler: Sampler | None = Field(default=None, description="as in /generate")
    deadline_ms: Annotated[int, Field(ge=1, le=MAX_DEADLINE_MS)] | None = Field(
        default=None, description="as in /generate"
    )
    candidates: Annotated[int, Field(ge=0, le=MAX_CANDIDATES)] | None = Field(
        default=None, description="as in /generate, in the chunks of a stream"
    )
    user: Any = Field(default=None, description=IGNORED)
    metadata: Any = Field(default=None, description=IGNORED)
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    repetition_penalty: One | None = None
    response_format: Annotated[dict[str, Any], AfterValidator(text_alone)] | None = None

    @model_validator(mode="after")
    def _diffusing_is_for_streams(self) -> Self:
        if self.diffusing and not self.stream:
            raise ValueError("diffusing is a form of a stream: set stream")
        return self

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)

    def same_fields(self) -> dict[str, Any]:
        """The fields that mean the same in /generate."""
        values = {name: getattr(self, name, None) for name in SAME_FIELDS}
        values["top_k"] = None if self.top_k is None else max(0, self.top_k)
        return {name: value for name, value in values.items() if value is not None}


class CompletionBody(OpenAIBody):
    """The body of `POST /v1/completions`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "Once upon a time", "max_tokens": 32}]})

    prompt: str | TokenIds | list[str] | list[TokenIds] | None = Field(
        default=None, description="text or token ids, or a list of at most 128 of either"
    )
    suffix: str | None = Field(default=None, description="what comes after the gap that is generated")
    max_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        default=None, description="tokens to generate (default: 16, or what still fits); 0 only with echo"
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        default=None,
        description="log-probabilities of the tokens, and so many of the likeliest classes; of a prompt that is "
        "echoed too, from left to right",
    )
    echo: bool | None = Field(default=None, description="true: the text begins with the prompt")
    canvas: Canvas | None = Field(default=None, description="as in /generate: instead of prompt, suffix and max_tokens")
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or token ids."""
        prompt: Any = self.prompt or ""
        return [*prompt] if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]

    @model_validator(mode="after")
    def _there_are_not_too_many_prompts(self) -> Self:
        if len(self.prompts) > MOST_PROMPTS:
            raise ValueError(f"prompt has {len(self.prompts)} prompts; at most {MOST_PROMPTS} go into one call")
        return self

    @model_validator(mode="after")
    def _echo_needs_a_prompt(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens can be 0 only together with echo; it must be at least 1")
        if self.echo and self.canvas is not None:
            raise ValueError("echo repeats the prompt: a canvas has none, and its text is whole anyway")
        return self

    def requests(self) -> list[GenerateBody]:
        """The request of each prompt, with a seed of its own. Raises RefusedError."""
        fields = self.same_fields()
        if self.canvas is not None:
            given = {name: getattr(self, name) for name in ("prompt", "suffix", "max_tokens", "logprobs")}
            return [parsed(CompletionRequest, fields | {name: v for name, v in given.items() if v is not None})]
        names = ("suffix", "max_tokens", "logprobs")
        fields |= {name: value for name in names if (value := getattr(self, name)) is not None}
        return [
            parsed(CompletionRequest, fields | {"prompt": prompt} | seed_of(self.seed, number))
            for number, prompt in enumerate(self.prompts)
        ]

    def scores(self) -> list[ScoreBody | None]:
        """For each prompt the score that its log-probabilities come from; None: they are not asked for, or it is empty.

        The order is from left to right: clients slice the numbers of a continuation out of it.
        """
        if not self.echo or self.logprobs is None:
            return [None] * len(self.prompts)
        return [
            ScoreBody(
                model=self.model,
                input=prompt,
                estimator="left_to_right",
                logprobs=self.logprobs,
                per_token=True,
                seed=0,
            )
            if prompt
            else None
            for prompt in self.prompts
        ]


class TextPart(Strict):
    """A part of a message: text."""

    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    """A message of a chat. The fields of an answer can be sent back, as long as they say nothing."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Nothing | None = None
    annotations: Nothing | None = None

    def for_template(self) -> dict[str, str]:
        """The message as templates know it: its content is one text."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role, "content": content} | ({} if self.name is None else {"name": self.name})


class ChatBody(OpenAIBody):
    """The body of `POST /v1/chat/completions`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"messages": [{"role": "user", "content": "Hello"}]}]})

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: MaxTokens | None = Field(
        default=None, description="tokens to generate (default: 128, or what still fits)"
    )
    max_tokens: MaxTokens | None = Field(default=None, description="the same, by its old name")
    logprobs: bool | None = Field(default=None, description="true: log-probabilities of the tokens")
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        default=None, description="with logprobs: so many of the likeliest classes too"
    )
    tools: Nothing | None = None
    tool_choice: Literal["none"] | None = None
    parallel_tool_calls: None = None
    functions: Nothing | None = None
    function_call: Literal["none"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    audio: None = None
    prediction: None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: None = None
    web_search_options: None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens mean the same, and have two values")
        return self

    @model_validator(mode="after")
    def _classes_need_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs are a part of the log-probabilities: set logprobs")
        return self

    def context(self, texts: TextSettings) -> dict[str, Any]:
        """What the template of the chat is told."""
        tokens = {name: getattr(texts, name) for name in ("bos_token", "eos_token", "pad_token")}
        messages = [message.for_template() for message in self.messages]
        known = {name: token for name, token in tokens.items() if token is not None}
        return {"messages": messages, "add_generation_prompt": True, "tools": None, **known}

    def request(self, prompt: str, recommended: Mapping[str, Any]) -> GenerateBody:
        """The request for the text that follows a prompt, with the author's settings where the body has none.

        Raises RefusedError.
        """
        tokens = self.max_completion_tokens or self.max_tokens
        fields = {**recommended, **self.same_fields(), **({} if tokens is None else {"max_tokens": tokens})}
        fields |= {"logprobs": self.top_logprobs or 0} if self.logprobs else {}
        return parsed(ChatRequest, fields | {"prompt": prompt})


class ChatRequest(GenerateBody):
    """A chat, as a request for tokens."""

    default_max_tokens: ClassVar[int] = CHAT_TOKENS


class CompletionRequest(GenerateBody):
    """One prompt of a completion, as a request for tokens."""

    default_max_tokens: ClassVar[int] = COMPLETION_TOKENS

    max_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None


def parsed(kind: type[GenerateBody], fields: Mapping[str, Any]) -> GenerateBody:
    """A request from its fields. Raises RefusedError."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise first_complaint(error.errors(), kind.model_fields) from error


def seed_of(seed: int | None, number: int) -> dict[str, int]:
    """The seed of a prompt of a call, from the call's: the first has the call's own."""
    if seed is None:
        return {}
    if number:
        seed = int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:8]) >> 1
    return {"seed": seed}
