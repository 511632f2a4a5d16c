"""Points drawn by the project's own sampler, and the schedules that it draws them along."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from tokenizers import Tokenizer
from torch import Tensor
from unmask_diffusion import (
    MAX_SAMPLES,
    ActiveSample,
    AddBos,
    GenerationRequest,
    Painter,
    Plan,
    PrimeDenoiser,
    Schedule,
    Steps,
    SubTokenizer,
    advance,
    make_plan,
)

from training.toy.learning import Learnt
from training.toy.pictures import SIDE

# samples that share an evaluation
TOGETHER = 512


@dataclass(frozen=True)
class ToyModel:
    """Satisfies `unmask_diffusion.Model`."""

    denoiser: PrimeDenoiser
    sub_tokenizer: SubTokenizer
    tokenizer: Tokenizer | None = None
    end_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None
    add_bos: AddBos = "never"
    full_canvas: bool = True
    carry_over: bool = True
    clock: int = 1
    image: Painter | None = None


@dataclass(frozen=True)
class Reveals:
    """Which sub-tokens are revealed together.

    Attributes:
        name: for people.
        steps: groups that a random order of the sub-tokens is cut into; None: one sub-token at a time, the exact
            first-hitting sampler.
        whole_tokens: instead, x with all its digits and then y with all of its: two evaluations.
    """

    name: str
    steps: int | None = None
    whole_tokens: bool = False

    def plan(self, learnt: Learnt, count: int, seed: int) -> Plan:
        """The plan of at most MAX_SAMPLES points."""
        request = GenerationRequest.model_validate(
            {"canvas": [None, None], "n": count, "seed": seed, "sampler": {"steps": self.steps}}
        )
        plan = make_plan(_model(learnt), request)
        if not self.whole_tokens:
            return plan
        digits = learnt.sub_tokenizer.sub_tokens_per_token
        whole = Schedule(Steps(range(2 * digits), [digits, 2 * digits]), idle_steps=0)
        return dataclasses.replace(plan, schedules=(whole,) * count)


def draw(learnt: Learnt, reveals: Reveals, count: int, seed: int, report: Callable[[float], None]) -> Tensor:
    """Draw points with the sampler of the server: how often each came, float64 [512, 512], summing to 1.

    Args:
        learnt: the network.
        reveals: which schedules.
        count: points.
        seed: of the first request.
        report: hears the share of the points that is drawn.
    """
    model, counts = _model(learnt), torch.zeros(SIDE, SIDE, dtype=torch.float64)
    waiting = _samples(learnt, reveals, count, seed)
    while together := list(islice(waiting, TOGETHER)):
        while running := [each for each in together if not each.finished]:
            advance(model, running)
        x, y = learnt.sub_tokenizer.decode(torch.stack([each.digits for each in together])).unbind(1)
        counts.index_put_((x, y), torch.ones(len(together), dtype=torch.float64), accumulate=True)
        report(float(counts.sum()) / count)
    return counts / count


def _samples(learnt: Learnt, reveals: Reveals, count: int, seed: int) -> Iterator[ActiveSample]:
    for first in range(0, count, MAX_SAMPLES):
        plan = reveals.plan(learnt, min(MAX_SAMPLES, count - first), seed + first)
        for index in range(len(plan.schedules)):
            yield ActiveSample.start(_model(learnt), plan, index)


def _model(learnt: Learnt) -> ToyModel:
    return ToyModel(learnt.network, learnt.sub_tokenizer)
