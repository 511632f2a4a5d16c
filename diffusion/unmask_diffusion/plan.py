"""A generation is a plan and a log.

    plan  = request + seed  → the schedule of every sample: what is revealed together, in which order
    log   = the reveals so far, one entry for each sample and step
    state = plan + log      (`replay`), nothing else

Progress and cost are counted from these, streams send them, and a generation can be resumed anywhere, identically.
"""

import secrets
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from unmask_kernels import Offsets

from unmask_diffusion.confidence import confidence_schedule
from unmask_diffusion.constraints import Sets, check_bias, offsets_of, read_canvas
from unmask_diffusion.given_digits import GivenDigit, read_sub_tokens
from unmask_diffusion.log import LogProbabilities, Reveal, TokenLogProbabilities
from unmask_diffusion.model import Outline
from unmask_diffusion.remasking import remasking
from unmask_diffusion.request import MAX_TEMPERATURE, GenerationRequest, RequestError, Sampler, TextOrIds, token_ids
from unmask_diffusion.schedule import Schedule, Steps, ancestral, first_hitting, hitting_times, near_equal_steps
from unmask_diffusion.text import find_stop, text_of

DEFAULT_MAX_TOKENS = 64
# drawn seeds stay below 2^53, so that JSON readers that keep numbers as doubles read them exactly
DRAWN_SEED_LIMIT = 2**53


@dataclass(frozen=True)
class Plan:
    """A request with its seed, its canvas and the schedule of each sample: everything but the tokens."""

    request: GenerationRequest  # with its seed: the same request gives the same plan
    seed: int  # the request's, or the one that was drawn for it
    canvas: tuple[int | None, ...]  # token ids, None where a token is to be generated
    generated: range  # the positions whose tokens are the answer
    length: int  # tokens of the canvas that the network sees, at least len(canvas)
    schedules: tuple[Schedule, ...]  # one a sample
    digits: tuple[GivenDigit, ...] = ()  # what is given of the tokens that are not wholly given, ascending
    sets: Sets = field(default_factory=dict)  # holes whose tokens are one of some

    @property
    def given(self) -> list[tuple[int, int]]:
        return [(position, token) for position, token in enumerate(self.canvas) if token is not None]

    @cached_property
    def digits_given(self) -> Counter[int]:
        """Number of digits that are given of the tokens that are not wholly given, by position."""
        return Counter(position for position, _, _ in self.digits)

    def temperature(self, sample: int, step: int) -> float:
        """The temperature of a step: a function of the plan alone."""
        sampler = self.request.sampler
        if sampler.temperature_schedule is None:
            return self.request.temperature
        time = self.schedules[sample].steps.share_before(step) ** (1 / (sampler.clock or 1))
        factor = max(0.0, sampler.temperature_schedule.at(time))
        return min(self.request.temperature * factor, MAX_TEMPERATURE)

    def step_after(self, reveal: Reveal) -> int:
        """The step of its sample that follows a reveal: with a bound, each sub-token does a step."""
        return reveal.step + (len(reveal.sub_tokens) if self.request.sampler.by_bound else 1)

    def offsets_at(self, position: int) -> Offsets | None:
        """What the request adds to the logits of a position, and the classes that it is restricted to."""
        return self._offsets.get(position, self._offsets[None])

    @cached_property
    def _offsets(self) -> dict[int | None, Offsets | None]:
        """By position; under None of all others."""
        bias = self.request.logit_bias or {}
        own: dict[int | None, Offsets | None] = {at: offsets_of(bias, members) for at, members in self.sets.items()}
        return {**own, None: offsets_of(bias, None)}

    def continues_text(self, model: Outline) -> bool:
        """Whether a text comes before the answer: more than the token that begins one."""
        before = self.canvas[: self.generated.start]
        return bool(before) and before != (model.bos_token_id,)

    @property
    def sub_tokens(self) -> int:
        return sum(schedule.sub_tokens for schedule in self.schedules)

    @property
    def reveals(self) -> int:
        """Number of draws of sub-tokens: more than there are where some are masked again."""
        return sum(len(schedule.steps.order) for schedule in self.schedules)

    @property
    def digits_a_token(self) -> int:
        """Sub-tokens of a token, l; 0 where nothing is to be generated."""
        holes, a_sample = self.canvas.count(None), self.sub_tokens // max(1, len(self.schedules))
        return (a_sample + len(self.digits)) // holes if holes else 0

    @property
    def units_a_token(self) -> int:
        """Number of parts of a masked token that may be revealed in different steps."""
        holes = len(self.schedules) * self.canvas.count(None)
        return 1 if self.request.sampler.unit == "token" or not holes else self.sub_tokens // holes

    @property
    def blocks(self) -> int:
        """Number of blocks that a sample's holes are cut into: the smallest number of its steps."""
        return blocks_of(self.canvas.count(None), self.request.sampler.block_length)

    @property
    def network_evaluations(self) -> int:
        """Number of network evaluations of all samples; with blocks, an end token may make some needless.

        With a bound it is the most that there can be.
        """
        return sum(len(schedule.steps) for schedule in self.schedules)

    @property
    def canvases(self) -> int:
        """Number of canvases of one network evaluation of a sample: two with guidance."""
        return 2 if self.request.sampler.guidance else 1

    @property
    def idle_steps(self) -> int:
        return sum(schedule.idle_steps for schedule in self.schedules)


@dataclass(frozen=True)
class Sample:
    """The answer of one sample."""

    index: int  # of the sample in its request
    text: str | None  # the generated tokens as text; None without a tokenizer
    token_ids: tuple[int, ...]  # the generated tokens, cut before the end token
    finish_reason: Literal["length", "stop"]  # "stop" where the end token cut the text
    # Where the request asks for log-probabilities: of each of the tokens, and of all that was revealed along its order,
    # what comes after an end token included.
    logprobs: tuple[TokenLogProbabilities, ...] | None = None
    log_probability: float | None = None


def make_plan(model: Outline, request: GenerationRequest, default_max_tokens: int = DEFAULT_MAX_TOKENS) -> Plan:
    """Check a request against a model and draw its schedules.

    Args:
        model: the model to plan for.
        request: the request.
        default_max_tokens: so many tokens, or what still fits, where the request has no max_tokens.

    Raises:
        RequestError: this model can never serve the request; the error names the field and the limit.
    """
    if request.stop and model.tokenizer is None:
        raise RequestError("stop", "stop is for text: this model has no tokenizer")
    check_bias(model, request.logit_bias)
    if request.sub_tokens is not None:
        canvas, digits = read_sub_tokens(model, request.sub_tokens)
        check_picture(model, "sub_tokens", len(canvas))
        return plan_on_canvas(model, request, canvas, range(len(canvas)), digits)
    canvas, generated, sets = _lay_out(model, request, default_max_tokens)
    return plan_on_canvas(model, request, canvas, generated, sets=sets)


def plan_on_canvas(
    model: Outline,
    request: GenerationRequest,
    canvas: tuple[int | None, ...],
    generated: range,
    digits: tuple[GivenDigit, ...] = (),
    sets: Sets | None = None,
) -> Plan:
    """Draw the schedules of a request whose canvas is known: a function of its seed, its holes and its sampler.

    So a plan can be stored without its schedules: it is the same wherever it is made again.

    Raises:
        RequestError: the sampler has fewer steps than blocks, or blocks of partly given tokens.
    """
    length = model.denoiser.length if model.full_canvas else len(canvas)
    seed = secrets.randbelow(DRAWN_SEED_LIMIT) if request.seed is None else request.seed
    digits_a_token = model.sub_tokenizer.sub_tokens_per_token
    holes = torch.tensor([p for p, token in enumerate(canvas) if token is None], dtype=torch.int64)
    sub_tokens = (holes[:, None] * digits_a_token + torch.arange(digits_a_token)).flatten()
    if digits:
        if request.sampler.block_length is not None:
            message = (
                "sampler.block_length is for tokens that are given or masked; sub_tokens gives some of them partly"
            )
            raise RequestError("sampler.block_length", message)
        given = torch.tensor([position * digits_a_token + j for position, j, _ in digits])
        sub_tokens = sub_tokens[~torch.isin(sub_tokens, given)]
    if request.sampler.clock is None and model.clock != 1 and request.sampler.cut in (None, "even"):
        request = request.model_copy(update={"sampler": request.sampler.model_copy(update={"clock": model.clock})})
    _check_steps(request.sampler, request.sampler.steps, len(holes))
    _check_end_token(model, request.sampler)
    groups: dict[int, list[int]] = {}  # whole tokens: their masked sub-tokens
    if request.sampler.unit == "token" and digits_a_token > 1:
        if request.sampler.by_confidence:
            message = (
                f"unit token is for first_hitting, ancestral and remasking, not for the order by {request.sampler.name}"
            )
            raise RequestError("sampler.unit", message)
        groups = _by_first(sub_tokens.tolist(), digits_a_token)
    units_a_token = 1 if groups else digits_a_token
    # whole tokens are scheduled by their first sub-tokens, which all of them then take the place of
    units = torch.tensor([own[0] for own in groups.values()]) if groups else sub_tokens
    if request.sampler.by_confidence:
        schedules = (confidence_schedule(request.sampler, sub_tokens.tolist(), digits_a_token),) * request.n
    elif request.sampler.name == "remasking":
        schedules = tuple(remasking(request.sampler, seed, request.n, units, units_a_token))
    else:
        times = hitting_times(seed, torch.arange(request.n)[:, None], units)
        schedules = tuple(_schedule(request.sampler, each, units, units_a_token) for each in times)
    if groups:
        schedules = tuple(replace(each, steps=each.steps.spread(groups)) for each in schedules)
    request = request.model_copy(update={"seed": seed})
    return Plan(request, seed, canvas, generated, length, schedules, digits, sets or {})


def _by_first(sub_tokens: Iterable[int], digits_a_token: int) -> dict[int, list[int]]:
    """The sub-tokens of each position, in their order, by the first one of them."""
    found: dict[int, list[int]] = {}
    for each in sub_tokens:
        found.setdefault(each // digits_a_token, []).append(each)
    return {own[0]: own for own in found.values()}


def cut(plan: Plan, steps: int) -> Plan:
    """The plan of the same request and seed with another number of steps: the same order, cut otherwise.

    Raises:
        ValueError: the plan's sampler cannot take any number of steps, or the steps are fewer than its blocks.
    """
    if not plan.request.sampler.takes_any_steps:
        raise ValueError(f"schedules of the sampler {plan.request.sampler.name} cannot be cut into other steps")
    holes = plan.canvas.count(None)
    _check_steps(plan.request.sampler, steps, holes)
    sampler = plan.request.sampler.model_copy(update={"steps": steps})
    if sampler.by_confidence:
        order = plan.schedules[0].steps.order
        schedules = (confidence_schedule(sampler, order, plan.units_a_token),) * len(plan.schedules)
    else:
        schedules = tuple(Schedule(_cut_otherwise(plan, each.steps.order, steps)) for each in plan.schedules)
    return replace(plan, request=plan.request.model_copy(update={"sampler": sampler}), schedules=schedules)


def _cut_otherwise(plan: Plan, order: Sequence[int], steps: int) -> Steps:
    block, clock = _block(plan.request.sampler, plan.units_a_token), plan.request.sampler.clock or 1
    if plan.request.sampler.unit == "sub_token":
        return near_equal_steps(order, steps, block, clock)
    groups = _by_first(order, plan.digits_a_token)
    return near_equal_steps([*groups], steps, block, clock).spread(groups)


def initial_state(model: Outline, plan: Plan) -> Tensor:
    """The canvas of a sample before its first reveal: int64 [plan.length, l], the mask id where nothing is known."""
    digits = model.sub_tokenizer.masked(plan.length)
    if plan.given:
        positions, tokens = zip(*plan.given, strict=True)
        digits[list(positions)] = model.sub_tokenizer.codes[list(tokens)]
    if plan.digits:
        positions, js, values = zip(*plan.digits, strict=True)
        digits[list(positions), list(js)] = torch.tensor(values)
    return digits


def replay(model: Outline, plan: Plan, log: Iterable[Reveal]) -> list[Tensor]:
    """Rebuild the state of every sample from the plan and the log: one [length, l] a sample."""
    states = [initial_state(model, plan) for _ in plan.schedules]
    for reveal in log:
        reveal.write(states[reveal.sample])
    return states


def read_sample(model: Outline, plan: Plan, index: int, digits: Tensor, log: Iterable[Reveal] = ()) -> Sample:
    """Turn a finished canvas [length, l] into the answer, cut before the first end token that was generated.

    With blocks, positions behind the block with that end token may be masked.

    Args:
        model: the model.
        plan: the plan.
        index: number of the sample.
        digits: its canvas.
        log: its reveals, where the request asks for log-probabilities.

    Raises:
        ValueError: a position before the end of the answer is masked.
    """
    span = digits[plan.generated.start : plan.generated.stop]
    masked = (span == model.sub_tokenizer.mask_id).any(-1).tolist()
    known = masked.index(True) if True in masked else len(masked)
    sample = answer_of(model, plan, index, model.sub_tokenizer.decode(span[:known]).tolist())
    if sample is None:
        raise ValueError(f"sample {index} is not finished: position {plan.generated[known]} is masked")
    if plan.request.logprobs is None:
        return sample
    found = LogProbabilities.of(log)
    logprobs = tuple(found.of_token(p, digits.shape[1]) for p in plan.generated[: len(sample.token_ids)])
    return replace(sample, logprobs=logprobs, log_probability=found.total)


def answer_of(model: Outline, plan: Plan, index: int, token_ids: Sequence[int]) -> Sample | None:
    """The answer of a sample, from the first tokens of its text; None where these do not decide it.

    It is cut before the first end token that was generated, unless the request ignores these, and before the first
    stop string, wherever the borders of the tokens are. Its tokens are the fewest that hold the whole text.
    """
    given, request = plan.canvas[plan.generated.start : plan.generated.stop], plan.request
    ends = (place for place, token in enumerate(token_ids) if token in model.end_token_ids and given[place] is None)
    end = None if request.ignore_eos else next(ends, None)
    kept, continues = tuple(token_ids[:end]), plan.continues_text(model)
    text = text_of(model, kept, continues)
    if text is not None and (cut := find_stop(text, request.stop)) is not None:
        text = text[:cut]
        tokens = bisect_left(
            range(len(kept)), True, key=lambda count: (text_of(model, kept[:count], continues) or "")[:cut] == text
        )
        return Sample(index, text, kept[:tokens], "stop")
    if end is None and len(kept) < len(given):
        return None
    return Sample(index, text, kept, "length" if end is None else "stop")


def _lay_out(
    model: Outline, request: GenerationRequest, default_max_tokens: int
) -> tuple[tuple[int | None, ...], range, Sets]:
    """The request's canvas, the positions that are the answer, and the sets of holes."""
    limit = model.denoiser.length
    if model.image is not None and request.canvas is None:
        _refuse_text(request)
        return (None,) * limit, range(limit), {}
    if request.canvas is not None:
        if len(request.canvas) > limit:
            raise RequestError("canvas", f"canvas has {len(request.canvas)} tokens; the model's length is {limit}")
        check_picture(model, "canvas", len(request.canvas))
        canvas, sets = read_canvas(model, request.canvas)
        return canvas, range(len(canvas)), sets
    prompt = _begun(model, "prompt", request.prompt, token_ids(model, "prompt", request.prompt, limit))
    suffix = _begun(model, "suffix", request.suffix, token_ids(model, "suffix", request.suffix, limit))
    room = limit - len(prompt) - len(suffix)
    if not prompt and not suffix and request.max_tokens == 0:
        raise RequestError("prompt", "prompt is empty, and no token is to be generated")
    if room < (request.max_tokens != 0):
        param = "prompt" if len(prompt) >= limit else "suffix"
        raise RequestError(
            param,
            f"prompt ({len(prompt)} tokens) and suffix ({len(suffix)}) leave no room to generate: "
            f"the model's length is {limit} tokens",
        )
    gap = min(default_max_tokens, room) if request.max_tokens is None else request.max_tokens
    if gap > room:
        raise RequestError(
            "max_tokens",
            f"prompt ({len(prompt)}) + max_tokens ({gap}) + suffix ({len(suffix)}) exceed the model's length, "
            f"{limit} tokens: max_tokens can be at most {room} here",
        )
    return (*prompt, *[None] * gap, *suffix), range(len(prompt), len(prompt) + gap), {}


def _begun(model: Outline, param: str, given: TextOrIds, ids: list[int]) -> list[int]:
    """The ids of a prompt or a suffix, with the token that begins a text where the model wants it and they lack it."""
    if param == "suffix":
        wanted = model.add_bos == "prompt_and_suffix" and isinstance(given, str) and bool(ids)
    elif model.add_bos == "empty_prompt":
        wanted = not ids
    else:
        wanted = model.add_bos != "never" and isinstance(given, str)
    if not wanted or model.bos_token_id is None or ids[:1] == [model.bos_token_id]:
        return ids
    return [model.bos_token_id, *ids]


def check_picture(model: Outline, param: str, tokens: int) -> None:
    """Refuse a canvas that is only a part of a picture."""
    if model.image is not None and tokens != model.image.length:
        message = f"{param} has {tokens} tokens; a picture of this model has {model.image.length}"
        raise RequestError(param, message)


def _refuse_text(request: GenerationRequest) -> None:
    for param in ("prompt", "suffix", "max_tokens"):
        if getattr(request, param) not in ("", [], None):
            message = "this is an image model: give a canvas, sub_tokens or an image to complete, or none of them"
            raise RequestError(param, f"{param} is for text; {message}")


def blocks_of(holes: int, block_length: int | None) -> int:
    """Number of blocks of so many holes; the last one may have fewer."""
    return -(-holes // (block_length or max(1, holes)))


def _check_steps(sampler: Sampler, steps: int | None, holes: int) -> None:
    blocks = blocks_of(holes, sampler.block_length)
    if steps is not None and steps < blocks:
        raise RequestError(
            "sampler.steps",
            f"sampler.steps is {steps}, fewer than the {blocks} blocks of sampler.block_length "
            f"{sampler.block_length}: each needs a step, so it must be at least {blocks} here",
        )


def _check_end_token(model: Outline, sampler: Sampler) -> None:
    for option in ("logits_eos_inf", "confidence_eos_eot_inf"):
        if getattr(sampler, option) and not model.end_token_ids:
            raise RequestError(f"sampler.{option}", f"sampler.{option}: this model has no end token")


def _block(sampler: Sampler, digits_a_token: int) -> int | None:
    """Number of sub-tokens of a block."""
    return sampler.block_length and sampler.block_length * digits_a_token


def _schedule(sampler: Sampler, times: Tensor, sub_tokens: Tensor, digits_a_token: int) -> Schedule:
    block, clock = _block(sampler, digits_a_token), sampler.clock or 1
    if sampler.name == "first_hitting":
        return first_hitting(times, sub_tokens, sampler.steps, block, clock)
    if sampler.steps is None:
        raise RequestError("sampler.steps", "steps is required for the ancestral sampler")
    return ancestral(times, sub_tokens, sampler.steps, block, clock)
