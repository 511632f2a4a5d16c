"""The samplers that are compared: drawing texts by them, and what the texts are worth."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from unmask_diffusion import ActiveSample, GenerationRequest, Model, Plan, Sampler, make_plan, run, score
from unmask_diffusion.request import HighOrder
from unmask_kernels import Measure

from benchmarks.papers.finding import MeanAndError, with_error
from training.tales import is_consistent

EXACT = Sampler()
TOGETHER = 32  # sequences that share their evaluations


@dataclass(frozen=True)
class Drawn:
    """Sequences drawn by one sampler."""

    tokens: Tensor  # int64 [N, L], whole canvases
    network_evaluations: float  # mean of a sequence
    idle_steps: float
    seconds: float  # of wall-clock time, for all


def samplers_of(
    groups: Sequence[int],
    steps: Sequence[int],
    high_orders: Sequence[HighOrder] = (),
    orders: Sequence[Measure] = (),
) -> list[Sampler]:
    """The samplers to compare: exact; k groups, plain, of each high order and by confidence; ancestral with T steps."""
    parallel = [Sampler(steps=k, high_order=kind) for kind in (None, *high_orders) for k in groups]
    parallel += [Sampler(name=name, steps=k) for name in orders for k in groups]
    return [EXACT, *parallel, *(Sampler(name="ancestral", steps=t) for t in steps)]


def family_of(sampler: Sampler) -> str:
    """The name that samplers share which differ in `steps` alone."""
    if sampler.name == "ancestral":
        return "ancestral, T"
    if sampler.by_confidence:
        return f"{sampler.name}, k"
    if sampler.steps is None:
        return "exact"
    return f"{sampler.high_order.replace('_', '-')}, k" if sampler.high_order else "groups, k"


def name_of(sampler: Sampler) -> str:
    return family_of(sampler) if sampler.steps is None else f"{family_of(sampler)} = {sampler.steps}"


def draw(
    model: Model, sampler: Sampler, count: int, seed: int = 0, together: int = TOGETHER, temperature: float = 1.0
) -> Drawn:
    """Draw `count` whole canvases without a prompt, `together` at a time."""
    fields: dict[str, Any] = {"sampler": sampler, "temperature": temperature}
    if model.image is None:
        fields["max_tokens"] = model.denoiser.length
    plans = [
        make_plan(model, GenerationRequest(n=min(together, count - start), seed=seed * count + start, **fields))
        for start in range(0, count, together)
    ]
    begun = time.perf_counter()
    samples = [each for plan in plans for each in _samples(model, plan)]
    seconds = time.perf_counter() - begun
    tokens = torch.stack([_canvas(model, each) for each in samples])
    evaluations = sum(each.step for each in samples)
    return Drawn(tokens, evaluations / count, sum(plan.idle_steps for plan in plans) / count, seconds)


def _samples(model: Model, plan: Plan) -> list[ActiveSample]:
    """The finished samples of a plan."""
    seen: list[list[ActiveSample]] = []
    run(model, plan, seen.append)
    return seen[-1]


def _canvas(model: Model, sample: ActiveSample) -> Tensor:
    """All tokens of a finished canvas, those after an end token too, int64 [L]; needless ones are end tokens."""
    digits = sample.digits.clone()
    if sample.end is not None:
        digits[(digits == model.sub_tokenizer.mask_id).any(-1)] = sample.end
    return model.sub_tokenizer.decode(digits)


@dataclass(frozen=True)
class TextQuality:
    """Means over texts, each with its standard error."""

    nats_per_token: MeanAndError  # the model's own valid bound of whole canvases, what stands behind the end token too
    unigram_entropy: MeanAndError  # of the frequencies of a canvas's own tokens, in nats
    broken_rules: MeanAndError | None  # of tales, by `training.tales.is_consistent`; None without a tokenizer


def unigram_entropy(ids: Tensor) -> float:
    """Entropy of the frequencies of token ids [L] among themselves, in nats: at most log L."""
    counts = ids.unique(return_counts=True)[1]
    shares = counts.double() / counts.sum()
    return float(-(shares * shares.log()).sum())


def text_quality(model: Model, tokens: Tensor, evaluations: int) -> TextQuality:
    """The quality of canvases of tokens, int64 [N, L], with `evaluations` network evaluations for each."""
    nats = [
        score(model, input=ids, estimator="integral", budget=evaluations, seed=seed).nats_per_token
        for seed, ids in enumerate(tokens.tolist())
    ]
    entropies = [unigram_entropy(ids) for ids in tokens]
    broken = broken_rules(model, tokens)
    return TextQuality(with_error(nats), with_error(entropies), with_error(broken) if broken else None)


def broken_rules(model: Model, tokens: Tensor) -> list[int]:
    """The number of rules that each tale of tokens, int64 [N, L], breaks; none without a tokenizer."""
    if model.tokenizer is None:
        return []
    texts = [model.tokenizer.decode(_before_the_end(model, ids), skip_special_tokens=False) for ids in tokens]
    return [len(is_consistent(text).broken) for text in texts]


def _before_the_end(model: Model, ids: Tensor) -> list[int]:
    ends = torch.isin(ids, torch.tensor(model.end_token_ids, dtype=ids.dtype)).nonzero()
    tokens: list[int] = ids[: int(ends[0])].tolist() if len(ends) else ids.tolist()
    return tokens
