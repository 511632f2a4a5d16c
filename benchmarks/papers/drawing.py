"""Drawing texts by the papers' samplers, and what the model itself thinks of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from unmask_diffusion import Model, Sampler, score
from unmask_service import frontier
from unmask_service.frontier import Drawn

from benchmarks.papers.finding import MeanAndError, with_error

EXACT = Sampler()
TOGETHER = 32  # sequences that share their evaluations


def samplers_of(groups: Sequence[int], steps: Sequence[int]) -> list[Sampler]:
    """The samplers to compare: exact, k groups, ancestral with T steps."""
    return [EXACT, *(Sampler(steps=k) for k in groups), *(Sampler(name="ancestral", steps=t) for t in steps)]


def family_of(sampler: Sampler) -> str:
    """The name that samplers share which differ in `steps` alone."""
    if sampler.name == "ancestral":
        return "ancestral, T"
    return "exact" if sampler.steps is None else "groups, k"


def name_of(sampler: Sampler) -> str:
    return family_of(sampler) if sampler.steps is None else f"{family_of(sampler)} = {sampler.steps}"


def draw(
    model: Model, sampler: Sampler, count: int, seed: int = 0, together: int = TOGETHER, temperature: float = 1.0
) -> Drawn:
    """Draw `count` whole canvases without a prompt, `together` at a time."""
    request = {"sampler": sampler, "temperature": temperature}
    return frontier.draw(model, frontier.plans_of(model, request, count, seed, together=together))


@dataclass(frozen=True)
class TextQuality:
    """Means over texts, each with its standard error."""

    nats_per_token: MeanAndError  # the model's own valid bound of whole canvases, what stands behind the end token too
    unigram_entropy: MeanAndError  # of the frequencies of a canvas's own tokens, in nats


def unigram_entropy(ids: Tensor) -> float:
    """Entropy of the frequencies of token ids [L] among themselves, in nats: at most log L."""
    return frontier.entropy(torch.bincount(ids))


def text_quality(model: Model, tokens: Tensor, evaluations: int) -> TextQuality:
    """The quality of canvases of tokens, int64 [N, L], with `evaluations` network evaluations for each."""
    nats = [
        score(model, input=ids, estimator="integral", budget=evaluations, seed=seed).nats_per_token
        for seed, ids in enumerate(tokens.tolist())
    ]
    return TextQuality(with_error(nats), with_error([unigram_entropy(ids) for ids in tokens]))
