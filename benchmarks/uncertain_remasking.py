"""Masking again what the network was unsure of, against masking again any sub-tokens, as `remasking` does.

As many are masked again in each step as the sampler `remasking` (schedule cap) masks on average. Which ones, of those
that are revealed: at random, as the sampler does; with weights 1 - p, where p is the probability with which the digit
was drawn; or those of the smallest p. Each with all digits, and with the last digits of tokens alone. The variants are
independent of the server's sampler and draw a batch at a time. docs/samplers.md has the results.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor
from unmask_diffusion import Model
from unmask_diffusion.request import TemperatureSchedule
from unmask_kernels import consistent_log_softmax
from unmask_service.frontier import Value
from unmask_service.settings import read_settings

from benchmarks.frontier import opened
from benchmarks.harness import Numbers, Table

TOGETHER = 32  # canvases of one evaluation
NO_CHANGE = TemperatureSchedule(start=1.0, change=0.0)

# (probabilities with which digits were drawn, uniform numbers) → what is masked again first has the largest number
Choice = Callable[[Tensor, Tensor], Tensor]
CHOICES: dict[str, Choice] = {
    "at random": lambda _, uniform: uniform,
    # the largest of log weight + Gumbel noise: a draw without replacement
    "by weights 1 - p": lambda p, uniform: torch.log(1 - p + 1e-4) - torch.log(-torch.log(uniform)),
    "the smallest p": lambda p, uniform: 1e-6 * uniform - p,
}


@dataclass(frozen=True)
class Tried:
    """What a variant's samples are worth."""

    choice: str
    digits: str
    evaluations: float  # mean of a sample
    values: dict[str, Value]  # by the judge's criteria


@dataclass
class Canvases:
    """Canvases that are drawn together, each in steps of its own."""

    model: Model
    count: int
    seed: int
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        codes = self.model.sub_tokenizer
        self.mask_id = codes.mask_id
        shape = self.count, self.model.denoiser.length, codes.sub_tokens_per_token
        self.digits = torch.full(shape, self.mask_id)
        self.sure = torch.zeros(shape)  # the probability with which each digit was drawn
        self.evaluations = 0

    def uniform(self) -> Tensor:
        return torch.rand(self.digits.shape, generator=self.generator)

    def reveal(self, which: Tensor, temperature: float) -> None:
        """Draw sub-tokens, bool [N, L, l]; digits of one token together."""
        canvases = which.flatten(1).any(1).nonzero().flatten()
        if not len(canvases):
            return
        self.evaluations += len(canvases)
        codes = self.model.sub_tokenizer.codes
        for some in canvases.split(TOGETHER):
            rows = [which[each].any(-1).nonzero().flatten() for each in some]
            features = self.model.denoiser.trunk([self.digits[each] for each in some], rows)
            canvas = torch.repeat_interleave(some, torch.tensor([len(each) for each in rows]))
            place = canvas, torch.cat(rows)
            logits = self.model.denoiser.head(features).float() / temperature
            probabilities = consistent_log_softmax(logits, self.digits[place], codes).exp()
            drawn = codes[torch.multinomial(probabilities, 1, generator=self.generator)[:, 0]]
            shown = which[place]
            # of the digits that are revealed: all tokens that have them
            same = ((codes[None] == drawn[:, None]) | ~shown[:, None]).all(-1)
            sure = (probabilities * same).sum(-1).float()
            self.digits[place] = torch.where(shown, drawn, self.digits[place])
            self.sure[place] = torch.where(shown, sure[:, None], self.sure[place])

    def mask(self, counts: Tensor, among: Tensor, choice: Choice) -> None:
        """Mask so many sub-tokens again, int64 [N], of those in bool [N, L, l]."""
        order = choice(self.sure, self.uniform()).masked_fill(~among, -torch.inf).flatten(1).argsort(1, descending=True)
        first = torch.arange(order.shape[1]) < counts[:, None]
        again = torch.zeros_like(first).scatter_(1, order, first).view(self.digits.shape)
        self.digits[again] = self.mask_id
        self.sure[again] = 0


@torch.inference_mode()
def draw(
    model: Model,
    samples: int,
    steps: int,
    rate: float,
    choice: Choice,
    last: bool,
    temperatures: TemperatureSchedule = NO_CHANGE,
    seed: int = 0,
) -> tuple[Tensor, float]:
    """Draw canvases with remasking: tokens, int64 [N, L], and the mean number of evaluations of a canvas.

    Args:
        model: what is drawn from; its clock decides when time steps end.
        samples: N.
        steps: T, of time.
        rate: of the schedule cap.
        choice: what is masked again first.
        last: mask only the last digits of tokens again.
        temperatures: at each time.
        seed: of everything.
    """
    canvases = Canvases(model, samples, seed)
    alphas = [(i / steps) ** model.clock for i in range(steps + 1)]
    for time, (before, after) in enumerate(pairwise(alphas)):
        hidden = canvases.digits == canvases.mask_id
        sigma = min(rate, (1 - after) / before) if before else 0.0
        shown = torch.full(canvases.digits.shape[2:], (after - (1 - sigma) * before) / (1 - before))
        eligible = ~hidden
        if last:
            eligible[..., :-1] = False
            shown[:-1] = (after - before) / (1 - before)
        counts = (eligible & (canvases.uniform() < sigma)).flatten(1).sum(1)
        canvases.reveal(hidden & (canvases.uniform() < shown), temperatures.at(time / steps))
        canvases.mask(counts, eligible, choice)
    return model.sub_tokenizer.decode(canvases.digits), canvases.evaluations / samples


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="faces", choices=["faces", "tales"], help="(default: faces)")
    parser.add_argument("--samples", type=int, default=64, help="of each variant (default: 64)")
    parser.add_argument("--steps", type=int, default=96, help="of time (default: 96)")
    parser.add_argument("--rate", type=float, default=0.2, help="of remasking (default: 0.2)")
    parser.add_argument("--seed", type=int, default=1, help="of all variants (default: 1)")


def measured(arguments: argparse.Namespace) -> Numbers:
    torch.set_num_threads(1)
    subject = opened(read_settings(model=arguments.model, model_dir=None, device="cpu", dtype=None, threads=1))
    assert subject.judge is not None  # noqa: S101
    sampler = (subject.recommended or {}).get("sampler", {})
    temperatures = TemperatureSchedule.model_validate(sampler.get("temperature_schedule") or NO_CHANGE)
    found = []
    for digits in ("all", "last"):
        for name, choice in CHOICES.items():
            settings = arguments.samples, arguments.steps, arguments.rate, choice, digits == "last", temperatures
            tokens, evaluations = draw(subject.model, *settings, arguments.seed)
            found.append(Tried(name, digits, evaluations, subject.judge.values(tokens)))
            print(f"{name}, {digits} digits: done", flush=True)
    criteria = [each.name for each in subject.judge.criteria]
    rows = [
        [each.choice, each.digits, f"{each.evaluations:.1f}", *(_shown(each.values[name]) for name in criteria)]
        for each in found
    ]
    about = f"{subject.name}: {arguments.samples} samples, T = {arguments.steps}, rate {arguments.rate:g}"
    print(Table(about, ["masked again", "digits", "evaluations", *criteria], rows))
    return {"about": about, "variants": found}


def _shown(value: Value) -> str:
    return f"{value[0]:.3f} ± {value[1]:.3f}"
