"""Requests, of a generation or a score: one definition for HTTP bodies, Python calls and stored plans."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from unmask_diffusion.model import Outline

MAX_SEED = 2**63 - 1
MAX_STEPS = 1_000_000
MAX_SAMPLES = 64
MAX_TEMPERATURE = 100.0
# network evaluations of a score
MAX_BUDGET = 2**20
MAX_BLOCK_LENGTH = 2**31 - 1
MAX_CLOCK = 16
# classes whose log-probabilities are told with each token
MAX_LOGPROBS = 5
MAX_STOPS = 16
MAX_BIAS = 100.0

TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
# a long list of wrong entries is refused at the first: an error for each would take seconds
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
TextOrIds = str | TokenIds
# the token is one of these
TokenSet = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
# a row of `sub_tokens`; the model says how many digits there are, and of which base
Digits = Annotated[
    list[Annotated[int, Field(ge=0, le=2**24)] | None], Field(min_length=1, max_length=64, fail_fast=True)
]


def _id_of_key(key: object) -> object:
    """A token id that is the key of a JSON object."""
    if isinstance(key, str):
        if re.fullmatch(r"0|[1-9][0-9]{0,9}", key) is None:
            raise ValueError("a token id, a whole number, is the name of each entry")
        return int(key)
    return key


Bias = Annotated[float, Field(ge=-MAX_BIAS, le=MAX_BIAS)]
TokenIdKey = Annotated[int, BeforeValidator(_id_of_key), Field(ge=0, le=2**31 - 1)]
LogitBias = dict[TokenIdKey, Bias]
Canvas = Annotated[list[TokenId | TokenSet | None], Field(min_length=1, fail_fast=True)]
BlockLength = Annotated[int, Field(ge=1, le=MAX_BLOCK_LENGTH)]
Clock = Annotated[int, Field(ge=1, le=MAX_CLOCK)]
Temperature = Annotated[float, Field(ge=0, le=MAX_TEMPERATURE)]
TopP = Annotated[float, Field(gt=0, le=1)]
MinP = Annotated[float, Field(ge=0, le=1)]
TopK = Annotated[int, Field(ge=0, le=2**31 - 1)]
Estimator = Literal["orders", "integral", "left_to_right"]
HighOrder = Literal["extrapolation"]
Cut = Literal["even", "llada", "dream", "dllm"]
CONFIDENCE_ORDERS = ("confidence", "margin", "entropy")
# samplers that reveal what the network is surest of, as many as a bound allows
BOUNDED = ("entropy_bounded", "threshold")
MAX_BOUND = 1e6
MAX_GUIDANCE = 100.0
# fields that only some samplers have
SAMPLERS_OF: Mapping[str, Sequence[str]] = {
    "cut": CONFIDENCE_ORDERS,
    "noise": (*CONFIDENCE_ORDERS, *BOUNDED),
    "confidence_eos_eot_inf": ("confidence",),
    "bound": BOUNDED,
    **dict.fromkeys(("schedule", "rate", "loop", "digits"), ("remasking",)),
}
Share = Annotated[float, Field(gt=0, lt=1)]
Unit = Literal["sub_token", "token"]


class RequestError(ValueError):
    """A request that this model can never serve: `param` is the field at fault, `code` names the fault for programs."""

    def __init__(self, param: str, message: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class Strict(BaseModel):
    """No unknown fields, no conversions between types, no infinities, frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class TemperatureSchedule(Strict):
    """A temperature that changes while a sample unmasks: start + change · t ** power."""

    start: Temperature = Field(description="at t = 0, when nothing is revealed")
    change: Annotated[float, Field(ge=-MAX_TEMPERATURE, le=MAX_TEMPERATURE)] = Field(description="from t = 0 to t = 1")
    power: Annotated[float, Field(gt=0, le=MAX_CLOCK)] = Field(default=1.0, description="1 is a straight line")

    @field_validator("change")
    @classmethod
    def _ends_within_the_limits(cls, value: float, info: ValidationInfo) -> float:
        start = info.data.get("start")
        if start is not None and not 0 <= start + value <= MAX_TEMPERATURE:
            raise ValueError(f"start + change must lie in 0 … {MAX_TEMPERATURE:g}, not {start + value:g}")
        return value

    def at(self, time: float) -> float:
        factor: float = self.start + self.change * time**self.power
        return factor


class RemaskingLoop(Strict):
    """When the schedule loop of the sampler remasking holds still and masks again; time t runs from 1 to 0."""

    t_on: Share = Field(default=0.55, description="it begins at this t; before, as many are revealed as make alpha_on")
    t_off: Share = Field(default=0.05, description="it ends at this t; after it the rest is revealed")
    alpha_on: Share = Field(default=0.9, description="the share that is revealed meanwhile")

    @field_validator("t_off")
    @classmethod
    def _ends_after_it_begins(cls, value: float, info: ValidationInfo) -> float:
        start = info.data.get("t_on")
        if start is not None and value >= start:
            raise ValueError(f"t_off is {value:g} and must be below t_on, {start:g}: time runs from 1 to 0")
        return value


class Sampler(Strict):
    """Which sub-tokens are revealed together: the choice of a schedule."""

    name: Literal[
        "first_hitting", "ancestral", "remasking", "confidence", "margin", "entropy", "entropy_bounded", "threshold"
    ] = Field(
        default="first_hitting",
        description="first_hitting and ancestral reveal in a uniformly random order. remasking is ancestral and masks "
        "some of what is revealed again. confidence, margin and entropy "
        "reveal what the network is surest of: by the probability of what it drew, by the distance between its two "
        "likeliest digits, or by the entropy. entropy_bounded and threshold reveal as many of these as bound allows. "
        "These are no exact samplers",
    )
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = Field(
        default=None,
        description="first_hitting: null is exact (one sub-token per evaluation), k cuts the order into k groups "
        "(at most one a sub-token). ancestral, remasking: the number of time steps T, required. confidence, margin, "
        "entropy: the "
        "number of evaluations, null is one a sub-token",
    )
    unit: Unit = Field(
        default="sub_token",
        exclude_if=lambda value: value == "sub_token",  # such requests are written as before the field existed
        description="token: all masked sub-tokens of a position in one step, drawn together; steps then count tokens",
    )
    high_order: HighOrder | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # such requests are written without the field, as before it existed
        description="first_hitting with steps: extrapolation draws from the last two predictions, extrapolated to when "
        "a sub-token is revealed. As many evaluations as without",
    )
    block_length: BlockLength | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # likewise
        description="fill the holes in blocks of so many tokens, from left to right, in a random order within a block; "
        "1 is left to right, null is one block. steps are the total of a sample, at least one a block",
    )
    clock: Clock | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # likewise
        description="n: time bins and groups end at (i/T)^n, so that the first ones are small; 1 makes them equal; "
        "null is the model's own, 1 for most (image models: 3)",
    )
    temperature_schedule: TemperatureSchedule | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # likewise
        description="what the request's temperature is multiplied by: start + change · t^power. t is the clock's time "
        "at which a step begins: the share of a sample's sub-tokens that is revealed by then, to the power 1/clock",
    )
    cut: Cut | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="confidence, margin, entropy: how many sub-tokens each step reveals. even (the default): steps of "
        "nearly equal size. llada, dream, dllm: as the official samplers of these names; dream also counts "
        "temperature, top_k and top_p into the confidence",
    )
    eps: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="cut dream: the time at which its schedule ends (default: 0.001)",
    )
    noise: Literal["step", "position"] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="samplers by confidence above temperature 0: step (the default, the official law) draws every "
        "masked sub-token anew at each step; position keeps each one's random numbers",
    )
    guidance: Annotated[float, Field(ge=0, le=MAX_GUIDANCE)] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="w > 0 draws from u + (w + 1)(c - u), the logits c of the canvas and u of the same canvas with "
        "everything that was given masked; two canvases an evaluation",
    )
    logits_eos_inf: bool | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="never draw the first of the model's end tokens",
    )
    confidence_eos_eot_inf: bool | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="sampler confidence: positions that drew an end token are revealed last",
    )

    schedule: Literal["cap", "rescale", "loop"] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="remasking: how likely a time step is to mask a revealed sub-token again. cap (the default): rate, "
        "or the most that is possible then if that is less. rescale: rate times the most that is possible. loop: rate "
        "while the share that is revealed holds still, and 0 before and after",
    )
    rate: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="remasking: see schedule; 0 is ancestral (default: 0.02)",
    )
    loop: RemaskingLoop | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="remasking with schedule loop: when it holds still",
    )
    digits: Literal["all", "last"] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="remasking: which digits of a token may be masked again: all (the default), or the last one only",
    )

    bound: Annotated[float, Field(ge=0, le=MAX_BOUND)] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="entropy_bounded: each evaluation reveals as many sub-tokens, those of the least entropy first, as "
        "keep the sum of their entropies less the largest within so many nats; 0 is one. threshold: all whose largest "
        "probability is at least this. At least one in any case",
    )

    @property
    def by_confidence(self) -> bool:
        """Whether the network decides what is revealed next."""
        return self.name in CONFIDENCE_ORDERS or self.by_bound

    @property
    def by_bound(self) -> bool:
        """Whether the network decides how many are revealed next, too."""
        return self.name in BOUNDED

    @property
    def takes_any_steps(self) -> bool:
        """Whether its steps can be cut to any number, at least one a block."""
        return self.name == "first_hitting" or (self.name in CONFIDENCE_ORDERS and self.cut in (None, "even"))

    @field_validator(*SAMPLERS_OF)
    @classmethod
    def _is_a_field_of_its_sampler(cls, value: object, info: ValidationInfo) -> object:
        name, own = info.data.get("name", "first_hitting"), SAMPLERS_OF[info.field_name or ""]
        if value is not None and value is not False and name not in own:
            *others, last = own
            samplers = f"samplers {', '.join(others)} and {last}" if others else f"sampler {last}"
            raise ValueError(f"{info.field_name} is for the {samplers}, not {name}")
        return value

    @field_validator("cut", "eps", "guidance", "loop", "digits")
    @classmethod
    def _fits_the_other_fields(cls, value: object, info: ValidationInfo) -> object:
        field, others = info.field_name, info.data
        if field == "cut" and value not in (None, "even") and others.get("clock") is not None:
            raise ValueError(f"cut {value} has steps of its own: leave out clock, or take cut even")
        if field == "cut" and value == "dream" and others.get("block_length") is not None:
            raise ValueError("cut dream has no blocks: leave out block_length, or take another cut")
        if field == "eps" and value is not None and others.get("cut") != "dream":
            raise ValueError("eps is for cut dream")
        if field == "guidance" and value and others.get("high_order"):
            raise ValueError("guidance cannot be combined with high_order: each needs a second prediction")
        if field == "loop" and value is not None and others.get("schedule") != "loop":
            raise ValueError("loop is for schedule loop")
        if field == "digits" and value == "last" and others.get("unit") == "token":
            raise ValueError("digits last is for unit sub_token: whole tokens are masked as one")
        return value

    @model_validator(mode="after")
    def _has_what_decides_its_steps(self) -> Self:
        if self.name in ("ancestral", "remasking") and self.steps is None:
            raise ValueError(f"steps is required for the {self.name} sampler")
        if self.by_bound and self.bound is None:
            raise ValueError(f"bound is required for the {self.name} sampler")
        if self.by_bound and self.steps is not None:
            raise ValueError(f"steps is not for the {self.name} sampler, whose bound decides how many there are")
        if self.name == "threshold" and (self.bound or 0) > 1:
            raise ValueError(f"bound is a probability for the threshold sampler: at most 1, not {self.bound:g}")
        return self

    @field_validator("high_order")
    @classmethod
    def _high_order_needs_groups(cls, value: HighOrder | None, info: ValidationInfo) -> HighOrder | None:
        if value and (info.data.get("name", "first_hitting") != "first_hitting" or info.data.get("steps", 1) is None):
            raise ValueError("high_order lowers the error of groups: it is for the first_hitting sampler with steps")
        if value and info.data.get("unit") == "token":
            raise ValueError("high_order is for unit sub_token: whole tokens have no sub-tokens in neighbouring steps")
        return value


class GenerationRequest(Strict):
    """One generation: what is given, how much is to be filled in, and how."""

    prompt: TextOrIds = Field(
        default="", description="text, or a list of token ids; the names of special tokens in a text stand for them"
    )
    suffix: TextOrIds = Field(default="", description="what comes after the gap that is generated; text or ids")
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        default=None, description="tokens to generate (default: 64, or what still fits)"
    )
    canvas: Canvas | None = Field(
        default=None,
        description="instead of prompt, suffix and max_tokens: token ids with holes (null) to fill; a list of ids is a "
        "hole whose token is one of these",
    )
    sub_tokens: Annotated[list[Digits], Field(min_length=1, fail_fast=True)] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # such requests are written without the field, as before it existed
        description="instead of canvas: the digits of each token, with holes (null) to fill: a token may be given, "
        "masked, or partly given",
    )
    n: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = Field(default=1, description="samples of this request")
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = Field(
        default=None,
        description="the same request with the same seed gives the same tokens; drawn when left out",
    )
    temperature: Temperature = Field(default=1.0, description="0 takes the most probable class")
    top_p: TopP = Field(default=1.0, description="nucleus; 1 is off, and exact")
    top_k: TopK = Field(default=0, description="0 is off, and exact")
    min_p: MinP = Field(
        default=0.0,
        exclude_if=lambda value: value == 0,  # such requests are written without the field, as before it existed
        description="drop the classes whose probability is below this share of the likeliest's, after temperature and "
        "before top_k and top_p; 0 is off, and exact",
    )
    sampler: Sampler = Sampler()
    logit_bias: LogitBias | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # such requests are written without the field, as before it existed
        description="token id → what is added to its logit wherever it can be drawn, before temperature, top_k and "
        "top_p",
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # such requests are written without the field, as before it existed
        description="log-probability of every sub-token when it was revealed, of every token (their sum) and of every "
        "sample, and so many of the likeliest classes of each token; null: none. They are the model's own, at "
        "temperature 1 and without top_k and top_p",
    )
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MAX_STOPS)] = Field(
        default=[],
        exclude_if=lambda value: not value,  # such requests are written without the field, as before it existed
        description="a string, or up to 16: the text is cut before the first of them that occurs in it; in blocks the "
        "sampler stops there",
    )
    ignore_eos: bool = Field(
        default=False,
        exclude_if=lambda value: not value,  # likewise
        description="true: the text is not cut at the model's end token",
    )

    @field_validator("logprobs")
    @classmethod
    def _logprobs_are_of_one_draw(cls, value: int | None, info: ValidationInfo) -> int | None:
        sampler = info.data.get("sampler")
        if value is not None and sampler is not None and sampler.name == "remasking":
            raise ValueError(
                "logprobs is not for the sampler remasking: it draws sub-tokens more than once, so the "
                "log-probabilities of those that stay do not add up to that of a sample"
            )
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop_or_none(cls, value: object) -> object:
        return ([value] if value else []) if isinstance(value, str | None) else value

    @model_validator(mode="after")
    def _canvas_stands_alone(self) -> Self:
        for field, others in (("canvas", ()), ("sub_tokens", ("canvas",))):
            replaced = [*others, "prompt", "suffix", "max_tokens"]
            found = [name for name in replaced if name in self.model_fields_set and getattr(self, name) is not None]
            if getattr(self, field) is not None and found:
                raise ValueError(
                    f"{field} takes the place of {', '.join(replaced[:-1])} and {replaced[-1]}; leave out {min(found)}"
                )
        return self


class GenerationSettings(Strict):
    """Fields of a generation request that a model's author recommends; None: nothing is recommended."""

    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    sampler: Sampler | None = None

    def as_given(self) -> dict[str, Any]:
        """The fields that were given, as in the body of a request."""
        return self.model_dump(exclude_unset=True, exclude_none=True)


class ScoreRequest(Strict):
    """A text whose likelihood is to be bounded, and how."""

    input: TextOrIds = Field(
        description="the text to score, or its token ids: at least one, and as many as the budget's limit pays for"
    )
    prompt: TextOrIds = Field(default="", description="given and not scored: what comes before the input")
    suffix: TextOrIds = Field(default="", description="given and not scored: what comes after the input")
    given: TokenIds = Field(
        default=[], description="positions of the input's tokens, from 0, that are given and not scored"
    )
    estimator: Estimator = Field(
        default="orders",
        description="orders: chains of marginals along random orders, in antithetic pairs. integral: the same mean as "
        "an integral over the mask rate, with low-discrepancy rates; each evaluation reads all masked sub-tokens. "
        "left_to_right: no bound but the log-probability along that one order, an evaluation a token, everything to "
        "its right masked",
    )
    budget: Annotated[int, Field(ge=1, le=MAX_BUDGET)] | None = Field(
        default=None,
        description="network evaluations at most (default: 4 pairs of orders, or 128 evaluations a window; more where "
        "standard_error_per_token is asked for)",
    )
    standard_error_per_token: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="stop as soon as the standard error of nats_per_token is no larger"
    )
    overlap: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        default=None,
        description="for a text longer than the model: tokens that a window shares with the one before it, given there "
        "and not scored again (default: half a window)",
    )
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = Field(
        default=None, description="the same request with the same seed gives the same numbers; drawn when left out"
    )
    published_integrand: bool = Field(
        default=False,
        description="also average the integrand that MDM-Prime's paper reports, joint log-probabilities of tokens: it "
        "is no bound",
    )
    per_token: bool = Field(default=False, description="also tell what each token contributes")
    unit: Unit = Field(
        default="sub_token",
        exclude_if=lambda value: value == "sub_token",  # such requests are written as before the field existed
        description="token: bound the likelihood under the sampler that reveals whole tokens: the evaluations are one "
        "for each token of an order, and read its joint log-probability",
    )
    block_length: BlockLength | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # such requests are written without the field, as before it existed
        description="bound the likelihood under the sampler with this block_length: the tokens to score (of a window) "
        "are revealed in blocks of so many, from left to right; null is one block. For estimator orders only",
    )

    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # likewise
        description="with left_to_right: also tell so many of the likeliest classes in the place of each token",
    )

    @field_validator("logprobs")
    @classmethod
    def _classes_are_for_one_order(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("estimator") != "left_to_right":
            raise ValueError("logprobs is for the estimator left_to_right: others see a token in many states")
        return value

    @model_validator(mode="after")
    def _one_order_has_no_spread(self) -> Self:
        if self.estimator == "left_to_right" and (self.standard_error_per_token or self.published_integrand):
            name = "standard_error_per_token" if self.standard_error_per_token else "published_integrand"
            raise ValueError(f"{name} is for averages over random orders: the estimator left_to_right has one order")
        return self

    @field_validator("unit")
    @classmethod
    def _published_is_of_sub_tokens(cls, value: Unit, info: ValidationInfo) -> Unit:
        if value == "token" and info.data.get("published_integrand"):
            raise ValueError("unit token cannot be combined with published_integrand: that is defined for sub-tokens")
        return value

    @field_validator("block_length")
    @classmethod
    def _blocks_are_for_orders(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("estimator") != "orders":
            raise ValueError(
                "block_length is for the estimator orders: the integral is over a mask rate that all tokens share, and "
                "left_to_right has an order of its own"
            )
        if value is not None and info.data.get("published_integrand"):
            raise ValueError(
                "block_length cannot be combined with published_integrand: that is defined for uniformly random orders"
            )
        return value


def token_ids(model: Outline, param: str, text_or_ids: TextOrIds, most: int | None = None) -> list[int]:
    """Turn a text, or token ids, into token ids.

    Args:
        model: the model whose tokens they are.
        param: the field of the request.
        text_or_ids: the field's value.
        most: a text that certainly has more tokens is refused before it is tokenised.

    Raises:
        RequestError: the model cannot read it.
    """
    if isinstance(text_or_ids, list):
        check_ids(model, param, text_or_ids)
        return text_or_ids
    if not text_or_ids:
        return []
    if model.tokenizer is None:
        raise RequestError(param, f"this model has no tokenizer: {param} must be a list of token ids")
    _check_length(model, param, text_or_ids, most)
    try:
        text_or_ids.encode()
    except UnicodeEncodeError as error:
        raise RequestError(param, f"{param} is not valid Unicode: it holds a lone surrogate") from error
    # a batch of one text: unlike `encode` it lets other threads run
    (encoding,) = model.tokenizer.encode_batch_fast([text_or_ids], add_special_tokens=False)
    return encoding.ids


def _check_length(model: Outline, param: str, text: str, limit: int | None) -> None:
    """Refuse text that cannot fit even if all its tokens were the longest of the vocabulary."""
    if limit is None or model.tokenizer is None or len(text) <= 4 * limit:
        return
    most = limit * max(len(token) for token in model.tokenizer.get_vocab())
    if len(text) > most:
        raise RequestError(
            param,
            f"{param} has {len(text)} characters; the model's length is {limit} tokens, at most {most} characters",
        )


def check_ids(model: Outline, param: str, ids: list[int]) -> None:
    """Check token ids against the model's vocabulary.

    Raises:
        RequestError: an id is too large.
    """
    limit = model.denoiser.vocabulary_size
    worst = max(ids, default=0)
    if worst >= limit:
        raise RequestError(param, f"{param} holds token id {worst}; the model's ids are 0 … {limit - 1}")
