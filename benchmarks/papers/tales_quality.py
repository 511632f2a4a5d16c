"""The share of consistent tales against network evaluations: what fewer evaluations cost in quality.

Tales without a prompt on the model's whole canvas, judged by `training.tales.is_consistent`: exact first-hitting, the
same order cut into k groups, and ancestral sampling with T time steps; each of them without blocks and with each block
length, where it has a step for each block, and at each temperature. Every sampler gets the same seeds, so that exact
and k groups reveal in the same order. Beside the share stand its 95 % interval (Wilson) and the mean number of rules
that a tale breaks; nonsense breaks few rules, because it has few sentences. The plot shows the first temperature
without blocks.

    python -m benchmarks tales_quality --block-lengths 1 8 --temperatures 1 0.7
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import mean

from matplotlib import pyplot
from matplotlib.axes import Axes
from rich.progress import track
from unmask_diffusion import MAX_SAMPLES, Model, Sampler

from benchmarks.harness import Numbers, Table
from benchmarks.models import add_model_options, described, open_model
from benchmarks.papers.drawing import broken_rules, draw, samplers_of

Z = 1.96
STYLES = {"first_hitting": ("o-", "tab:blue", "k groups"), "ancestral": ("s--", "tab:orange", "ancestral T")}


@dataclass(frozen=True)
class Quality:
    """One sampler's tales."""

    sampler: str  # first_hitting (exact where steps is None, else that many groups) or ancestral
    steps: int | None
    samples: int
    network_evaluations: float  # mean of a sample; idle_steps too
    idle_steps: float
    consistent: int  # tales out of `samples` that break no rule; share, and its interval from low to high
    share: float
    low: float
    high: float
    broken_rules: float  # mean of a tale
    seconds: float  # for all samples
    block_length: int | None  # None: one block
    temperature: float


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share."""
    share, width = successes / trials, Z * Z / trials
    middle = (share + width / 2) / (1 + width)
    half = sqrt(share * (1 - share) * width + width * width / 4) / (1 + width)
    return max(0.0, middle - half), min(1.0, middle + half)


def in_blocks(samplers: Sequence[Sampler], block_length: int | None, length: int) -> list[Sampler]:
    """Those of the samplers that have a step for each block of a canvas of so many tokens, in blocks."""
    blocks = 1 if block_length is None else -(-length // block_length)
    chosen = (each for each in samplers if each.steps is None or each.steps >= blocks)
    return [each.model_copy(update={"block_length": block_length}) for each in chosen]


def measure(model: Model, sampler: Sampler, samples: int, batch: int, temperature: float = 1.0) -> Quality:
    """Draw tales with one sampler and judge them."""
    drawn = draw(model, sampler, samples, together=batch, temperature=temperature)
    broken = broken_rules(model, drawn.tokens)
    consistent = broken.count(0)
    share, (low, high) = consistent / samples, wilson(consistent, samples)
    return Quality(
        sampler.name,
        sampler.steps,
        samples,
        drawn.network_evaluations,
        drawn.idle_steps,
        consistent,
        share,
        low,
        high,
        mean(broken),
        drawn.seconds,
        sampler.block_length,
        temperature,
    )


def table_of(qualities: Sequence[Quality], about: str) -> Table:
    rows = [
        [
            "exact" if each.steps is None else f"{STYLES[each.sampler][2]} = {each.steps}",
            "one" if each.block_length is None else f"of {each.block_length}",
            f"{each.temperature:g}",
            f"{each.network_evaluations:.1f}",
            f"{each.consistent} ({each.share:.0%})",
            f"{each.low:.0%} – {each.high:.0%}",
            f"{each.broken_rules:.2f}",
            f"{each.seconds:.1f}",
        ]
        for each in qualities
    ]
    columns = [
        "sampler",
        "blocks",
        "temperature",
        "evaluations",
        "consistent",
        "95 % interval",
        "broken rules",
        "seconds",
    ]
    return Table(about, columns, rows)


def _draw(upper: Axes, lower: Axes, qualities: Sequence[Quality], style: str, colour: str, label: str) -> None:
    size = 12 if style == "*" else 4
    evaluations = [each.network_evaluations for each in qualities]
    shares = [each.share for each in qualities]
    below, above = [e.share - e.low for e in qualities], [e.high - e.share for e in qualities]
    upper.errorbar(
        evaluations, shares, (below, above), fmt=style, color=colour, label=label, markersize=size, capsize=2
    )
    lower.plot(evaluations, [e.broken_rules for e in qualities], style, color=colour, label=label, markersize=size)


def plot(qualities: Sequence[Quality], about: str, file: Path) -> None:
    first = qualities[0].temperature
    qualities = [each for each in qualities if each.block_length is None and each.temperature == first]
    figure, (upper, lower) = pyplot.subplots(2, sharex=True, figsize=(7.5, 6), layout="constrained")
    for name, (style, colour, label) in STYLES.items():
        chosen = [each for each in qualities if each.sampler == name and each.steps]
        _draw(upper, lower, sorted(chosen, key=lambda each: each.network_evaluations), style, colour, label)
    _draw(upper, lower, [each for each in qualities if each.steps is None], "*", "black", "exact")
    figure.suptitle(about, fontsize=8)
    upper.set(xscale="log", ylabel="share of consistent tales", ylim=(0, 1))
    upper.legend()
    lower.set(xlabel="network evaluations a tale", ylabel="broken rules a tale", ylim=(0, None))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--samples", type=int, default=200, help="tales a sampler (default: 200)")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16, 32, 64, 128], help="k, and T")
    parser.add_argument("--block-lengths", type=int, nargs="+", default=[], help="tokens of a block, beside one block")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0], help="(default: 1)")
    parser.add_argument("--batch", type=int, default=MAX_SAMPLES, help=f"tales together (default: {MAX_SAMPLES})")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the plot here")


def measured(arguments: argparse.Namespace) -> Numbers:
    model = open_model(arguments)
    plain = samplers_of(arguments.steps, arguments.steps)
    lengths = (None, *arguments.block_lengths)
    samplers = [each for length in lengths for each in in_blocks(plain, length, model.denoiser.length)]
    pairs = [(each, temperature) for temperature in arguments.temperatures for each in samplers]
    qualities = [
        measure(model, sampler, arguments.samples, arguments.batch, temperature)
        for sampler, temperature in track(pairs, description="samplers")
    ]
    about = f"{arguments.samples} tales a sampler, {described(model)}"
    print(table_of(qualities, about))
    if arguments.png:
        plot(qualities, about, arguments.png)
    return {"model": described(model), "samplers": qualities}
