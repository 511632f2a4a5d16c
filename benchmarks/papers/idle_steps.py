"""Idle steps against T and l: what finer sub-tokens leave unused, counted from the server's own plans.

A time step is idle if it reveals nothing: the papers' sampler evaluates the network for it all the same. With n
masked sub-tokens, each revealed in one of T equal steps, Proposition A.1 of paper 2 expects T (1 - 1/T)^n of them;
Figure 1 there counts them. Here the plans of `ancestral` requests say how many they skip. A plan needs no network, so
the sizes are the official ones: 1024 tokens of GPT-2's vocabulary.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from matplotlib.figure import Figure
from rich.progress import track
from unmask_diffusion import MAX_SAMPLES, GenerationRequest, Sampler, SubTokenizer, make_plan, smallest_base

from benchmarks.harness import Table
from benchmarks.models import BareModel
from benchmarks.papers.finding import Finding

VOCABULARY_SIZE = 50257
DIGITS = (1, 2, 3, 4, 6, 8)
STEPS = (128, 256, 512, 1024, 2048, 4096, 8192)
SEED = 1
MANY = 20  # idle steps of all runs, from which on their count is about normal
QUICK = {"length": 32, "digits": [1, 2], "steps": [16, 64], "runs": 4}


@dataclass(frozen=True)
class Reach:
    """The size of a network that is not there. Satisfies `unmask_diffusion.Extent`."""

    length: int
    vocabulary_size: int


@dataclass(frozen=True)
class IdleSteps:
    """Idle steps of one T and l."""

    sub_tokens_per_token: int  # l
    sub_tokens: int  # n, masked at the start
    steps: int  # T
    runs: int  # samples that were planned
    counted: float  # their mean number of idle steps
    expected: float  # by Proposition A.1
    standard_error: float  # of a mean over so many runs, computed as `expected` is

    @property
    def deviation(self) -> float:
        """Of the count from its expectation, in standard errors."""
        return (self.counted - self.expected) / self.standard_error if self.standard_error else 0.0


def expected_idle_steps(steps: int, sub_tokens: int) -> tuple[float, float]:
    """Mean and standard deviation of the number of T equal steps in which none of n uniform times falls.

    The mean is Proposition A.1's; two given steps are both empty with probability (1 - 2/T)^n.
    """
    empty, both_empty = (1 - 1 / steps) ** sub_tokens, (1 - 2 / steps) ** sub_tokens if steps > 1 else 0.0
    variance = steps * (steps - 1) * both_empty + steps * empty - (steps * empty) ** 2
    return steps * empty, sqrt(max(variance, 0.0))


def count(length: int, digits: int, steps: int, runs: int) -> IdleSteps:
    codes = SubTokenizer.from_base(VOCABULARY_SIZE, digits, smallest_base(VOCABULARY_SIZE, digits))
    request = GenerationRequest(n=runs, max_tokens=length, seed=SEED, sampler=Sampler(name="ancestral", steps=steps))
    plan = make_plan(BareModel(Reach(length, VOCABULARY_SIZE), codes), request)
    expected, deviation = expected_idle_steps(steps, length * digits)
    return IdleSteps(digits, length * digits, steps, runs, plan.idle_steps / runs, expected, deviation / sqrt(runs))


def table_of(counts: Sequence[IdleSteps], length: int) -> Table:
    cells = {(each.steps, each.sub_tokens_per_token): each for each in counts}
    digits = sorted({each.sub_tokens_per_token for each in counts})
    rows = []
    for steps in sorted({each.steps for each in counts}):
        line = [cells[steps, each] for each in digits]
        shown = [f"{each.counted:.1f} / {each.expected:.1f} ({each.expected / steps:.0%})" for each in line]
        rows.append([str(steps), *shown])
    title = f"Idle steps, counted / T (1 - 1/T)^n (its share of T); {length} tokens, means of {counts[0].runs} plans"
    return Table(title, ["T", *(f"l = {each}" for each in digits)], rows)


def draw(counts: Sequence[IdleSteps], figure: Figure) -> None:
    axes = figure.subplots()
    for number, digits in enumerate(sorted({each.sub_tokens_per_token for each in counts})):
        chosen = sorted((each for each in counts if each.sub_tokens_per_token == digits), key=lambda each: each.steps)
        steps = range(chosen[0].steps, chosen[-1].steps + 1)
        curve = [expected_idle_steps(each, chosen[0].sub_tokens)[0] / each for each in steps]
        axes.plot(steps, curve, color=f"C{number}", linewidth=1)
        shares = [each.counted / each.steps for each in chosen]
        axes.plot([each.steps for each in chosen], shares, "o", color=f"C{number}", markersize=5, label=f"l = {digits}")
    axes.plot([], [], color="grey", label="Proposition A.1")
    axes.set(xscale="log", xlabel="time steps T", ylabel="share of idle steps", ylim=(0, 1))
    axes.legend()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--length", type=int, default=1024, help="tokens of the canvas (default: 1024)")
    parser.add_argument("--digits", type=int, nargs="+", default=DIGITS, metavar="l", help="sub-tokens a token")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, metavar="T", help="time steps")
    parser.add_argument("--runs", type=int, default=10, help=f"plans of each, at most {MAX_SAMPLES} (default: 10)")


def measured(arguments: argparse.Namespace) -> Finding:
    jobs = [(digits, steps) for digits in arguments.digits for steps in arguments.steps]
    counts = [count(arguments.length, *job, arguments.runs) for job in track(jobs, description="plans")]
    worst = max((abs(each.deviation) for each in counts if each.runs * each.expected >= MANY), default=0.0)
    numbers = {"counts": counts, "largest_deviation_in_standard_errors": worst}
    print(f"largest deviation: {worst:.2f} standard errors (of counts of at least {MANY})")
    return Finding([table_of(counts, arguments.length)], numbers, lambda figure: draw(counts, figure))
