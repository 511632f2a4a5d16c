"""Each sampler's own error: bigrams drawn from a known Markov chain against the truth.

The denoiser is the chain's exact posterior, so whatever differs from the chain is the sampler's doing (and the
counting noise, which is measured by drawing as many sequences from the chain itself). The divergence is
KL(bigrams drawn ‖ bigrams of the chain) in nats.

    python -m benchmarks.sampler_error [--sequences 1024] [--steps 8 16 32 …] [--json FILE] [--png FILE]
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from matplotlib import pyplot
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from unmask_diffusion import MarkovDenoiser, SubTokenizer, make_plan, sample, smallest_base
from unmask_diffusion.request import GenerationRequest

from benchmarks.machine import machine
from benchmarks.options import parser_of, run_benchmark

CLASSES, LENGTH = 64, 128
STEPS = (8, 16, 32, 64, 128, 256, 512)
BATCH = 64
CHAIN_SEED = 1


@dataclass(frozen=True)
class MarkovModel:
    """The least that planning and sampling need of a model. Satisfies `unmask_diffusion.Model`."""

    denoiser: MarkovDenoiser
    sub_tokenizer: SubTokenizer
    tokenizer: None = None
    end_token_id: None = None
    full_canvas: bool = True


@dataclass(frozen=True)
class Point:
    """One sampler's figures: mean network evaluations and idle steps a sequence, divergence in nats a bigram."""

    sub_tokens_per_token: int
    sampler: str
    steps: int | None
    network_evaluations: float
    idle_steps: float
    divergence: float


def random_chain(seed: int) -> tuple[Tensor, Tensor]:
    """A stationary chain whose rows are Dirichlet(0.2): initial [C], transition [C, C], float64."""
    generator = torch.Generator().manual_seed(seed)
    gammas = torch._standard_gamma(torch.full((CLASSES, CLASSES), 0.2, dtype=torch.float64), generator)
    transition = (gammas + 1e-6) / (gammas + 1e-6).sum(1, keepdim=True)
    initial = torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)
    for _ in range(1000):
        initial = initial @ transition
    return initial, transition


def divergence(sequences: Tensor, initial: Tensor, transition: Tensor) -> float:
    """KL of the bigrams of sequences, int64 [N, L], from those of the stationary chain."""
    pairs = (sequences[:, :-1] * CLASSES + sequences[:, 1:]).flatten()
    drawn = torch.bincount(pairs, minlength=CLASSES * CLASSES).double()
    drawn /= drawn.sum()
    truth = (initial[:, None] * transition).flatten()
    return float(torch.where(drawn > 0, drawn * (drawn / truth).log(), 0.0).sum())


def from_the_chain(initial: Tensor, transition: Tensor, count: int, seed: int) -> Tensor:
    """Draw sequences from the chain itself: the floor that counting noise sets."""
    generator = torch.Generator().manual_seed(seed)
    states = [torch.multinomial(initial, count, replacement=True, generator=generator)]
    for _ in range(LENGTH - 1):
        states.append(torch.multinomial(transition[states[-1]], 1, generator=generator)[:, 0])
    return torch.stack(states, 1)


def samplers(steps: Sequence[int]) -> Iterator[tuple[str, int | None]]:
    """The samplers to compare."""
    yield "first_hitting", None
    for count in steps:
        yield "first_hitting", count
        yield "ancestral", count


def measure(model: MarkovModel, name: str, steps: int | None, count: int, chain: tuple[Tensor, Tensor]) -> Point:
    """Draw `count` sequences and compare them with the chain."""
    fields = {"sampler": {"name": name, "steps": steps}, "n": BATCH, "max_tokens": LENGTH}
    drawn, evaluations, idle = [], 0, 0
    for seed in range(count // BATCH):
        request = GenerationRequest.model_validate({**fields, "seed": seed})
        plan = make_plan(model, request)
        evaluations += plan.network_evaluations
        idle += plan.idle_steps
        drawn += [each.token_ids for each in sample(model, **{**fields, "seed": seed})]
    error = divergence(torch.tensor(drawn), *chain)
    return Point(
        model.sub_tokenizer.sub_tokens_per_token, name, steps, evaluations / len(drawn), idle / len(drawn), error
    )


def plot(points: list[Point], floor: float, file: Path) -> None:
    """Draw divergence against network evaluations."""
    figure, axes = pyplot.subplots(figsize=(7.5, 4.5), layout="constrained")
    for digits, colour in ((1, "tab:orange"), (2, "tab:blue"), (3, "tab:green")):
        for name, style in (("first_hitting", "o-"), ("ancestral", "s--")):
            chosen = [p for p in points if p.sub_tokens_per_token == digits and p.sampler == name and p.steps]
            chosen.sort(key=lambda p: p.network_evaluations)
            label = f"l = {digits}, " + ("k groups" if name == "first_hitting" else "ancestral T")
            xs, ys = [p.network_evaluations for p in chosen], [p.divergence for p in chosen]
            axes.plot(xs, ys, style, color=colour, label=label, markersize=4)
        exact = next(p for p in points if p.sub_tokens_per_token == digits and p.steps is None)
        axes.plot(
            exact.network_evaluations, exact.divergence, "*", color=colour, markersize=13, label=f"l = {digits}, exact"
        )
    axes.axhline(floor, color="grey", linewidth=1, label="the chain itself (counting noise)")
    axes.set(xscale="log", yscale="log", xlabel="network evaluations a sequence", ylabel="bigram divergence, nats")
    axes.legend(fontsize=8, ncols=2)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def table_of(points: Sequence[Point], about: str) -> Table:
    """What is printed."""
    table = Table(title=about)
    for column in ("l", "sampler", "steps", "evaluations", "idle steps", "divergence, nats"):
        table.add_column(column, justify="right")
    for p in points:
        steps_shown = "exact" if p.steps is None else str(p.steps)
        evaluations, idle = f"{p.network_evaluations:.1f}", f"{p.idle_steps:.1f}"
        table.add_row(str(p.sub_tokens_per_token), p.sampler, steps_shown, evaluations, idle, f"{p.divergence:.4f}")
    return table


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--sequences", type=int, default=1024, help=f"sequences a sampler, a multiple of {BATCH}")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="groups, and time steps")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at a time (default: one a core)")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the plot here")
    return parser


def measure_one(job: tuple[int, str, int | None, int]) -> Point:
    """A job of a process of its own: digits a token, sampler, steps, sequences."""
    torch.set_num_threads(1)
    digits, name, steps, sequences = job
    chain = random_chain(CHAIN_SEED)
    sub_tokenizer = SubTokenizer.from_base(CLASSES, digits, smallest_base(CLASSES, digits))
    model = MarkovModel(MarkovDenoiser(chain[0].log(), chain[1].log(), LENGTH, sub_tokenizer), sub_tokenizer)
    return measure(model, name, steps, sequences, chain)


def main(given: Sequence[str] | None = None) -> None:
    """Run the comparison and print it."""
    run_benchmark(options(), measured, given)


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure, print and plot; what is to be written."""
    torch.set_num_threads(1)  # the products are tiny: threads would spend their time waiting for each other
    count = arguments.sequences
    chain = random_chain(CHAIN_SEED)
    floor = divergence(from_the_chain(*chain, count, seed=2), *chain)
    jobs = [(digits, name, steps, count) for digits in (1, 2, 3) for name, steps in samplers(arguments.steps)]
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        points = list(track(pool.map(measure_one, jobs), description="samplers", total=len(jobs)))
    about = f"C {CLASSES}, L {LENGTH}, {count} sequences; the chain itself: {floor:.4f} nats; {machine()}"
    Console().print(table_of(points, about))
    if arguments.png:
        plot(points, floor, arguments.png)
    return {"machine": machine(), "sequences": count, "floor": floor, "points": [asdict(p) for p in points]}


if __name__ == "__main__":
    main()
