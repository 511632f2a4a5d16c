"""The one sampler loop: evaluate the network, draw the group's sub-tokens, reveal them.

All samplers of both papers are this loop over different schedules. Samples at different noise levels, of different
lengths, temperatures and requests share one evaluation, since the network never asks what time it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from unmask_kernels import DrawError, draw

from unmask_diffusion.plan import Model, Plan, Reveal, Sample, apply, initial_state, make_plan, read_sample
from unmask_diffusion.request import GenerationRequest
from unmask_diffusion.schedule import event_of

# logits in flight are drawn in blocks of at most this many elements, whatever a group's width (256 MiB in float32)
LOGITS_IN_FLIGHT = 1 << 26


@dataclass
class ActiveSample:
    """A sample on its way: its plan and the state that its log has led to.

    Attributes:
        plan: the plan of its request.
        index: which sample of the request.
        digits: its canvas, int64 [plan.length, l].
        step: groups revealed so far.
    """

    plan: Plan
    index: int
    digits: Tensor
    step: int = 0

    @classmethod
    def start(cls, model: Model, plan: Plan, index: int) -> "ActiveSample":
        """A sample before its first reveal."""
        return cls(plan, index, initial_state(model, plan))

    @property
    def finished(self) -> bool:
        """Whether every group has been revealed."""
        return self.step == len(self.plan.schedules[self.index].groups)

    @property
    def next_group(self) -> tuple[int, ...]:
        """The sub-tokens (position · l + j) that the next evaluation reveals."""
        return self.plan.schedules[self.index].groups[self.step]

    def reveal(self, entry: Reveal) -> None:
        """Move on by one log entry."""
        apply(self.digits, entry)
        self.step += 1


@dataclass(frozen=True)
class SampleError:
    """Why a sample cannot go on; its neighbours can.

    Attributes:
        sample: index of the sample in its request.
        message: what happened, for the client.
        impossible: the given tokens have probability zero under the model (else: the model gave invalid logits).
    """

    sample: int
    message: str
    impossible: bool


class SamplingError(ValueError):
    """A sample of a plan that runs alone cannot go on."""


@dataclass(frozen=True)
class DrawRows:
    """The rows of logits that one evaluation must draw from, a row a position that is in its sample's group.

    Attributes:
        groups: for each sample, {position: [j, …]} of its group.
        positions: for each sample int64 [rows], its group's positions.
        revealed: int64 [N, l], what is known of the tokens at these positions.
        seeds, events, top_k: int64 [N]. temperature, top_p: float64 [N].
    """

    groups: list[dict[int, list[int]]]
    positions: list[Tensor]
    revealed: Tensor
    seeds: Tensor
    events: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor


@torch.inference_mode()
def evaluate(model: Model, samples: Sequence[ActiveSample]) -> list[Reveal | SampleError]:
    """Take samples through one network evaluation; nothing is written into them.

    Digits of different positions are drawn independently, digits of one position jointly: one class is drawn from
    the consistent joint distribution, and its digits at the group's places are revealed. That is a draw from the
    digits' marginal, and no digits that name no token can come out.

    Returns:
        What each sample's group became, or why it cannot go on.
    """
    rows = _rows_to_draw(samples, model.sub_tokenizer.sub_tokens_per_token)
    features = model.denoiser.trunk([sample.digits for sample in samples], rows.positions)
    return _collect(model, samples, rows, *_draw_in_blocks(model, features, rows))


def sample(model: Model, /, **request: Any) -> list[Sample]:  # noqa: ANN401 — the fields of GenerationRequest
    """Generate without a server: takes what POST /generate takes, draws what the server draws.

    Args:
        model: an open bundle.
        **request: the fields of `GenerationRequest`, for example prompt, max_tokens, n, seed, sampler.

    Raises:
        ValueError: a field is out of range (pydantic's ValidationError), does not fit the model (`RequestError`),
            or what is given has probability zero (`SamplingError`).
    """
    return run(model, make_plan(model, GenerationRequest.model_validate(request)))


def run(
    model: Model, plan: Plan, after_evaluation: Callable[[list[ActiveSample]], None] = lambda _: None
) -> list[Sample]:
    """Take a plan to its end, alone.

    Args:
        model: to evaluate.
        plan: of one request.
        after_evaluation: sees all samples before the first evaluation and after each.

    Raises:
        SamplingError: a sample cannot go on.
    """
    samples = [ActiveSample.start(model, plan, index) for index in range(len(plan.schedules))]
    after_evaluation(samples)
    while running := [each for each in samples if not each.finished]:
        for each, outcome in zip(running, evaluate(model, running), strict=True):
            if isinstance(outcome, SampleError):
                raise SamplingError(outcome.message)
            each.reveal(outcome)
        after_evaluation(samples)
    return [read_sample(model, plan, each.index, each.digits) for each in samples]


def _rows_to_draw(samples: Sequence[ActiveSample], digits_a_token: int) -> DrawRows:
    groups: list[dict[int, list[int]]] = []
    seeds, events, temperature, top_k, top_p = [], [], [], [], []
    for each in samples:
        in_order = (divmod(sub_token, digits_a_token) for sub_token in sorted(each.next_group))
        group = {position: [j for _, j in pairs] for position, pairs in groupby(in_order, key=lambda pair: pair[0])}
        groups.append(group)
        request, width = each.plan.request, len(group)
        seeds += [each.plan.seed] * width
        events += [event_of(each.index, position * digits_a_token + js[0]) for position, js in group.items()]
        temperature += [request.temperature] * width
        top_k += [request.top_k] * width
        top_p += [request.top_p] * width
    positions = [torch.tensor(list(group)) for group in groups]
    return DrawRows(
        groups,
        positions,
        torch.cat([each.digits[p] for each, p in zip(samples, positions, strict=True)]),
        torch.tensor(seeds),
        torch.tensor(events),
        torch.tensor(temperature, dtype=torch.float64),
        torch.tensor(top_k),
        torch.tensor(top_p, dtype=torch.float64),
    )


def _draw_in_blocks(model: Model, features: Tensor, rows: DrawRows) -> tuple[list[int], set[int], set[int]]:
    """Draw a class for every row of features [N, F].

    Returns:
        The classes, the rows without a candidate, the rows with invalid logits.
    """
    device = features.device
    codes = model.sub_tokenizer.codes.to(device)
    size = max(1, LOGITS_IN_FLIGHT // model.denoiser.vocabulary_size)
    classes: list[int] = []
    impossible: set[int] = set()
    invalid: set[int] = set()
    for start in range(0, len(features), size):
        block = slice(start, start + size)
        try:
            drawn = draw(
                model.denoiser.head(features[block]),
                rows.revealed[block].to(device),
                codes,
                rows.seeds[block].to(device),
                rows.events[block].to(device),
                rows.temperature[block].to(device),
                top_k=rows.top_k[block].to(device),
                top_p=rows.top_p[block].to(device),
            )
        except DrawError as error:
            drawn = error.classes
            impossible |= {start + row for row in error.no_candidate}
            invalid |= {start + row for row in error.invalid}
        classes += drawn.tolist()
    return classes, impossible, invalid


def _collect(
    model: Model,
    samples: Sequence[ActiveSample],
    rows: DrawRows,
    classes: list[int],
    impossible: set[int],
    invalid: set[int],
) -> list[Reveal | SampleError]:
    """Give each sample what was drawn in its rows."""
    outcomes: list[Reveal | SampleError] = []
    stop = 0
    for each, group in zip(samples, rows.groups, strict=True):
        start, stop = stop, stop + len(group)
        span = range(start, stop)
        if not invalid.isdisjoint(span):
            outcomes.append(SampleError(each.index, "the model gave NaN or infinite logits", impossible=False))
        elif not impossible.isdisjoint(span):
            message = "what is given has probability zero under this model: no class is possible"
            outcomes.append(SampleError(each.index, message, impossible=True))
        else:
            codes = model.sub_tokenizer.codes[classes[start:stop]].tolist()
            outcomes.append(Reveal(each.index, each.step, _revealed(codes, group)))
    return outcomes


def _revealed(codes: list[list[int]], group: dict[int, list[int]]) -> tuple[tuple[int, int, int], ...]:
    """The digits of the drawn classes at the group's places: (position, j, digit)."""
    return tuple((position, j, code[j]) for code, (position, js) in zip(codes, group.items(), strict=True) for j in js)
