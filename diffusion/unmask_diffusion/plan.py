"""A generation is a plan and a log.

    plan  = request + seed  → the schedule of every sample: what is revealed together, in which order
    log   = the reveals so far, one entry a sample and network evaluation
    state = plan + log      (`replay`), nothing else

Progress, cost and streams are counted from these; a generation can be resumed anywhere, identically.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from unmask_diffusion.model import Outline
from unmask_diffusion.request import GenerationRequest, RequestError
from unmask_diffusion.schedule import Schedule, ancestral, first_hitting, hitting_times, near_equal_groups
from unmask_diffusion.text import check_ids, token_ids

DEFAULT_MAX_TOKENS = 64
# seeds that are drawn stay below 2^53, so that they survive JSON readers that keep numbers as doubles
DRAWN_SEED_LIMIT = 2**53


@dataclass(frozen=True, slots=True)
class Reveal:
    """A log entry: what one network evaluation revealed in one sample.

    Attributes:
        sample: index of the sample in its request.
        step: which group of the sample's schedule this is, from 0.
        sub_tokens: (position, j, digit) of every sub-token revealed.
    """

    sample: int
    step: int
    sub_tokens: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Plan:
    """A request with its seed, its canvas and the schedule of each sample: everything but the tokens.

    Attributes:
        request: what was asked, with its seed: asking it again gives the same plan.
        seed: the request's, or the one that was drawn for it.
        canvas: token ids of the request's canvas, None where a token is to be generated.
        generated: the positions whose tokens are the answer.
        length: tokens of the canvas that the network sees, at least len(canvas).
        schedules: one a sample.
    """

    request: GenerationRequest
    seed: int
    canvas: tuple[int | None, ...]
    generated: range
    length: int
    schedules: tuple[Schedule, ...]

    @property
    def given(self) -> list[tuple[int, int]]:
        """(position, token id) of the tokens that are given."""
        return [(position, token) for position, token in enumerate(self.canvas) if token is not None]

    @property
    def sub_tokens(self) -> int:
        """Sub-tokens to reveal, all samples."""
        return sum(len(schedule.groups.order) for schedule in self.schedules)

    @property
    def network_evaluations(self) -> int:
        """Network evaluations planned, all samples."""
        return sum(len(schedule.groups) for schedule in self.schedules)

    @property
    def idle_steps(self) -> int:
        """Time steps that reveal nothing and are skipped, all samples."""
        return sum(schedule.idle_steps for schedule in self.schedules)


@dataclass(frozen=True)
class Sample:
    """The answer of one sample.

    Attributes:
        index: which sample of the request.
        text: the generated tokens as text; None without a tokenizer.
        token_ids: the generated tokens, cut before the end token.
        finish_reason: "stop" where the end token cut the text.
    """

    index: int
    text: str | None
    token_ids: tuple[int, ...]
    finish_reason: Literal["length", "stop"]


def make_plan(model: Outline, request: GenerationRequest) -> Plan:
    """Check a request against a model and draw its schedules.

    Raises:
        RequestError: the request can never be served by this model; the error names the field and the limit.
    """
    canvas, generated = _lay_out(model, request)
    return plan_on_canvas(model, request, canvas, generated)


def plan_on_canvas(
    model: Outline, request: GenerationRequest, canvas: tuple[int | None, ...], generated: range
) -> Plan:
    """Draw the schedules of a request whose canvas is laid out: they depend on its seed, its holes and its sampler.

    So a plan need not be stored with its schedules: wherever it is made again, it is the same.
    """
    length = model.denoiser.length if model.full_canvas else len(canvas)
    seed = secrets.randbelow(DRAWN_SEED_LIMIT) if request.seed is None else request.seed
    digits_a_token = model.sub_tokenizer.sub_tokens_per_token
    holes = torch.tensor([p for p, token in enumerate(canvas) if token is None], dtype=torch.int64)
    sub_tokens = (holes[:, None] * digits_a_token + torch.arange(digits_a_token)).flatten()
    times = hitting_times(seed, torch.arange(request.n)[:, None], sub_tokens)
    schedules = tuple(_schedule(request, each, sub_tokens) for each in times)
    return Plan(request.model_copy(update={"seed": seed}), seed, canvas, generated, length, schedules)


def cut(plan: Plan, groups: int) -> Plan:
    """The plan of the same first-hitting request and seed with `steps` = groups: the same order, cut otherwise.

    Raises:
        ValueError: the plan's groups are those of another sampler, which its order does not tell.
    """
    if plan.request.sampler.name != "first_hitting":
        raise ValueError(f"a schedule of the {plan.request.sampler.name} sampler cannot be cut into other groups")
    schedules = tuple(Schedule(near_equal_groups(each.groups.order, groups)) for each in plan.schedules)
    sampler = plan.request.sampler.model_copy(update={"steps": groups})
    return replace(plan, request=plan.request.model_copy(update={"sampler": sampler}), schedules=schedules)


def initial_state(model: Outline, plan: Plan) -> Tensor:
    """The canvas of a sample before its first reveal: int64 [plan.length, l], the mask id where nothing is known."""
    digits = model.sub_tokenizer.masked(plan.length)
    if plan.given:
        positions, tokens = zip(*plan.given, strict=True)
        digits[list(positions)] = model.sub_tokenizer.codes[list(tokens)]
    return digits


def apply(digits: Tensor, reveal: Reveal) -> None:
    """Write a log entry into its sample's canvas [length, l], in place."""
    positions, js, values = zip(*reveal.sub_tokens, strict=True)
    digits[list(positions), list(js)] = torch.tensor(values)


def replay(model: Outline, plan: Plan, log: Iterable[Reveal]) -> list[Tensor]:
    """Rebuild the state of every sample from the plan and the log: one [length, l] a sample."""
    states = [initial_state(model, plan) for _ in plan.schedules]
    for reveal in log:
        apply(states[reveal.sample], reveal)
    return states


def read_sample(model: Outline, plan: Plan, index: int, digits: Tensor) -> Sample:
    """Turn a finished canvas [length, l] into the answer, cut before the first end token that was generated."""
    span = digits[plan.generated.start : plan.generated.stop]
    token_ids: list[int] = model.sub_tokenizer.decode(span).tolist()
    given = plan.canvas[plan.generated.start : plan.generated.stop]
    ends = (place for place, token in enumerate(token_ids) if token == model.end_token_id and given[place] is None)
    end = next(ends, None)
    stopped = end is not None
    token_ids = token_ids[:end]
    text = None if model.tokenizer is None else model.tokenizer.decode(token_ids, skip_special_tokens=False)
    return Sample(index, text, tuple(token_ids), "stop" if stopped else "length")


def _lay_out(model: Outline, request: GenerationRequest) -> tuple[tuple[int | None, ...], range]:
    """Place what is given on the canvas; also say which positions are the answer."""
    limit = model.denoiser.length
    if request.canvas is not None:
        check_ids(model, "canvas", [token for token in request.canvas if token is not None])
        if len(request.canvas) > limit:
            raise RequestError("canvas", f"canvas has {len(request.canvas)} tokens; the model's length is {limit}")
        return tuple(request.canvas), range(len(request.canvas))
    prompt = token_ids(model, "prompt", request.prompt, limit)
    suffix = token_ids(model, "suffix", request.suffix, limit)
    room = limit - len(prompt) - len(suffix)
    if room < 1:
        param = "prompt" if len(prompt) >= limit else "suffix"
        raise RequestError(
            param,
            f"prompt ({len(prompt)} tokens) and suffix ({len(suffix)}) leave no room to generate: "
            f"the model's length is {limit} tokens",
        )
    gap = min(DEFAULT_MAX_TOKENS, room) if request.max_tokens is None else request.max_tokens
    if gap > room:
        raise RequestError(
            "max_tokens",
            f"prompt ({len(prompt)}) + max_tokens ({gap}) + suffix ({len(suffix)}) exceed the model's length, "
            f"{limit} tokens: max_tokens can be at most {room} here",
        )
    return (*prompt, *[None] * gap, *suffix), range(len(prompt), len(prompt) + gap)


def _schedule(request: GenerationRequest, times: Tensor, sub_tokens: Tensor) -> Schedule:
    steps = request.sampler.steps
    if request.sampler.name == "first_hitting":
        return first_hitting(times, sub_tokens, steps)
    if steps is None:
        raise RequestError("sampler.steps", "steps is required for the ancestral sampler")
    return ancestral(times, sub_tokens, steps)
