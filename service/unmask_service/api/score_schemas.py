"""What goes over the wire for scores. The request itself comes from `unmask_diffusion`."""

import math
from collections.abc import Callable
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator
from unmask_diffusion import Score, ScorePlan, ScoreRequest
from unmask_diffusion.request import Estimator, TextOrIds

from unmask_service.api.schemas import ImageInput, JobStatus, Message, only

TokenLikeliest = tuple[int, list[tuple[int, str | None, float]]]  # position, (token id, text, log-probability)
Contribution = tuple[int, int, str | None, float]  # position, token id, text, nats


class ScoreBody(ScoreRequest):
    """The body of `POST /score`: the request, the model that it is for, and the form of the answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": "Once upon a time", "seed": 7}]})

    input: TextOrIds = Field(default="", description="the text to score, or its token ids: at least one")
    image: ImageInput | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # such bodies are written without the field, as before it existed
        description="for an image model, instead of input: the picture to score; with a mask, its transparent part",
    )
    model: str | None = Field(default=None, description="the name that /v1/models lists; may be left out")
    stream: bool = Field(default=False, description="true: Server-Sent Events; false: one JSON object at the end")
    detach: bool = Field(
        default=False,
        description="true: the score goes on when its client leaves, and can be read under /score/{id}; without "
        "`stream` the answer is 202 with its status, at once",
    )

    @model_validator(mode="after")
    def _input_or_image(self) -> Self:
        if self.image is None and "input" not in self.model_fields_set:
            raise ValueError("input is required, or for an image model image")
        if self.image is not None:
            others = [name for name in ("input", "prompt", "suffix", "given") if getattr(self, name)]
            if others:
                raise ValueError(f"image takes the place of input, prompt, suffix and given; leave out {others[0]}")
            if self.image.given_digits is not None:
                raise ValueError("image has given_digits, which are for generations: a score is of whole tokens")
        return self

    def request(self) -> ScoreRequest:
        """The request without the fields of the transport."""
        return only(ScoreRequest, self)


class Averaged(Message):
    """What an estimate is the mean of: its estimator's replicates."""

    name: Estimator
    replicates: int = Field(
        description="number of independent replicates (of orders: pairs), whose spread gives the standard error"
    )
    network_evaluations: int = Field(description="number of network evaluations of these replicates")
    planned: int = Field(
        description="number of planned network evaluations; fewer are needed to reach a requested standard error"
    )


class PublishedIntegrand(Message):
    """The mean of MDM-Prime's published integrand, joint log-probabilities of tokens. It is not a bound."""

    nats: float
    standard_error: float
    nats_per_token: float
    standard_error_per_token: float
    is_a_bound: Literal[False] = False


class ScoreTimings(Message):
    """Milliseconds from the moment at which the request entered the queue."""

    queue_ms: float
    total_ms: float


class ScoreNumbers(Message):
    """The numbers of a score, over HTTP and on the command line: a bound of -log p(input | what is given)."""

    model: str
    nats: float = Field(description="estimate of an upper bound of -log p of all scored tokens")
    standard_error: float = Field(description="standard error of nats")
    nats_per_token: float
    standard_error_per_token: float
    perplexity_per_token: float | None = Field(
        description="exp(nats per token); null where it is larger than any double"
    )
    perplexity_per_word: float | None = Field(description="the same per word; see words")
    bits_per_byte: float | None = Field(description="bits per byte of the scored text in UTF-8; see bytes")
    bits_per_dimension: float | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # scores of texts are as before it existed
        description="for an image model: nats per token / ln 2, the bound",
    )
    tokens: int = Field(description="number of scored tokens")
    words: int | None = Field(
        description="number of words of the scored text, split at white space; null without a tokenizer, or with given"
    )
    bytes: int | None = Field(description="number of bytes of the scored text in UTF-8; null where words is")
    estimator: Averaged
    windows: int = Field(
        description="number of windows that the text was cut into; the bound is the sum of their bounds"
    )
    window: int = Field(description="length of a window in tokens")
    overlap: int = Field(
        description="number of tokens that a window shares with the one before, given there; 0 for one window"
    )
    seed: int
    published_integrand: PublishedIntegrand | None = Field(description="null unless requested")
    token_nats: list[Contribution] | None = Field(
        description="with per_token in the request: [position in the input, token_id, text, nats] of every scored "
        "token; they sum to nats"
    )

    token_likeliest: list[TokenLikeliest] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # answers without it are as before it existed
        description="with logprobs in the request: [position in the input, [[token_id, text, log-probability], …]] of "
        "every scored token",
    )

    @staticmethod
    def of(
        model: str, plan: ScorePlan, score: Score, text_of: Callable[[int], str | None], picture: bool = False
    ) -> "ScoreNumbers":
        """The numbers of a score by a model, with the texts of its tokens; `picture`: they are those of a picture."""
        by_token = [(each.position, each.token, text_of(each.token), each.nats) for each in score.token_nats]
        likeliest = [
            (each.position, [(token, text_of(token), -nats) for token, nats in each.likeliest])
            for each in score.token_nats
        ]
        published = None
        if score.published is not None:
            published = PublishedIntegrand(
                nats=score.published.nats,
                standard_error=score.published.standard_error,
                nats_per_token=score.published.nats / score.tokens,
                standard_error_per_token=score.published.standard_error / score.tokens,
            )
        return ScoreNumbers(
            model=model,
            nats=score.bound.nats,
            standard_error=score.bound.standard_error,
            nats_per_token=score.nats_per_token,
            standard_error_per_token=score.standard_error_per_token,
            perplexity_per_token=score.perplexity_per_token,
            perplexity_per_word=score.perplexity_per_word,
            bits_per_byte=score.bits_per_byte,
            bits_per_dimension=score.nats_per_token / math.log(2) if picture else None,
            tokens=score.tokens,
            words=score.words,
            bytes=score.bytes,
            estimator=Averaged(
                name=plan.request.estimator,
                replicates=score.replicates,
                network_evaluations=score.network_evaluations,
                planned=plan.network_evaluations,
            ),
            windows=len(plan.windows),
            window=plan.window_tokens,
            overlap=plan.overlap,
            seed=plan.seed,
            published_integrand=published,
            token_nats=by_token if plan.request.per_token else None,
            token_likeliest=likeliest if plan.request.logprobs else None,
        )


class ScoreAnswer(ScoreNumbers):
    """The answer without `stream`, and the data of the event `done`."""

    id: str
    created: int = Field(description="Unix time in seconds")
    timings: ScoreTimings
    fingerprint: str = Field(description="the kind of machine and arithmetic: equal fingerprints give equal numbers")


class ScoreStatus(JobStatus):
    """Where a score is."""

    answer: ScoreAnswer | None = Field(default=None, description="null until it has finished")


class ScoreStartEvent(Message):
    """The data of the event `start` of a score."""

    id: str
    model: str
    tokens: int = Field(description="number of tokens to score")
    sub_tokens: int = Field(description="number of sub-tokens to score")
    windows: int
    window: int = Field(description="length of a window in tokens")
    overlap: int
    estimator: Estimator
    replicates: int = Field(description="number of planned replicates")
    network_evaluations: int = Field(description="number of planned network evaluations")
    eta_ms: int | None = Field(
        description="milliseconds until `done` at the latest, as expected; null while no engine has reported its speed"
    )
    seed: int


class ProgressEvent(Message):
    """The data of the event `progress`: some more network evaluations are done."""

    network_evaluations: int = Field(description="number of planned network evaluations")
    network_evaluations_done: int
    replicates: int = Field(description="number of complete replicates")
    nats_per_token: float | None = Field(description="estimate from the complete replicates; null before there are two")
    standard_error_per_token: float | None
