"""Whole canvases drawn by one sampler, without a prompt."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from unmask_diffusion import MAX_SAMPLES, ActiveSample, GenerationRequest, Model, Plan, make_plan, run


@dataclass(frozen=True)
class Drawn:
    """Canvases drawn by one sampler."""

    tokens: Tensor  # int64 [N, L], whole canvases
    network_evaluations: float  # mean of a sample
    idle_steps: float  # likewise
    seconds: float  # of wall-clock time, for all


def plans_of(
    model: Model,
    request: Mapping[str, Any],
    count: int,
    seed: int = 0,
    length: int | None = None,
    together: int = MAX_SAMPLES,
) -> list[Plan]:
    """Plans of `count` canvases of `length` tokens (None: the model's), at most `together` in each.

    The seeds do not depend on the sampler, so that samplers with a random order have the same orders.

    Raises:
        ValueError: the request does not fit the model.
    """
    fields: dict[str, Any] = dict(request)
    if model.image is None:
        fields["max_tokens"] = length or model.denoiser.length
    return [
        make_plan(
            model,
            GenerationRequest.model_validate(
                {"n": min(together, count - start), "seed": seed * count + start, **fields}
            ),
        )
        for start in range(0, count, together)
    ]


def draw(model: Model, plans: list[Plan], report: Callable[[int], None] = lambda _: None) -> Drawn:
    """Draw all canvases of some plans; `report` hears after each evaluation how many steps of the plans are done.

    Raises:
        SamplingError: a sample cannot continue.
    """
    begun = time.perf_counter()
    samples: list[ActiveSample] = []
    for plan in plans:
        done, running = sum(each.step for each in samples), list[ActiveSample]()

        def listen(active: list[ActiveSample], done: int = done, running: list[ActiveSample] = running) -> None:
            running[:] = active
            report(done + sum(each.step for each in active))

        run(model, plan, listen)
        samples += running
    seconds = time.perf_counter() - begun
    tokens = torch.stack([_canvas(model, each) for each in samples])
    evaluations = sum(each.evaluations for each in samples) / len(samples)
    return Drawn(tokens, evaluations, sum(plan.idle_steps for plan in plans) / len(samples), seconds)


def _canvas(model: Model, sample: ActiveSample) -> Tensor:
    """The tokens of a finished canvas, those behind an end token too, int64 [L]; needless ones are end tokens."""
    digits = sample.digits[sample.plan.generated.start : sample.plan.generated.stop].clone()
    if sample.end is not None:
        digits[(digits == model.sub_tokenizer.mask_id).any(-1)] = sample.end[0]
    return model.sub_tokenizer.decode(digits)
