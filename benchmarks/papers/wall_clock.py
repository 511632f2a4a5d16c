"""Wall clock of first-hitting against ancestral sampling at equal quality: paper 1's twenty times.

Ways to draw a text by the shipped model, in turns in one run:

  exact, groups    first-hitting, whole runs: one sub-token an evaluation, or k groups
  ancestral        ours with T steps, whole runs: idle steps are skipped and only a group's rows are drawn
  papers, plain    the papers' algorithm (evaluation/papers_sampler.py): all T steps evaluated, all positions drawn
  papers, cached   the same, with the probabilities reused after a step that changed nothing in the batch (their
                   `ddpm_cache`)

The papers' steps are timed at `--reference-steps` evenly spread times, on canvases masked by the forward process, and
scaled to T; Proposition A.1 gives the number of steps that change something. The papers' sampler and our `ancestral`
draw from one law (tests count it), so quality is measured once for both: the sampler's error on a Markov chain with the
same l, and the shipped model's bound of its own texts. Equal quality means: k groups with the least k whose divergence
from the chain is at most that of T steps plus two deviations of counting noise.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

import torch
from matplotlib.figure import Figure
from rich.progress import track
from unmask_diffusion import MAX_SAMPLES, Model, Sampler

from benchmarks.evaluation.clock import Parts
from benchmarks.evaluation.papers_sampler import PAPERS_PARTS, PapersSampler, step_times, timed_step
from benchmarks.harness import Table
from benchmarks.models import add_model_options, described, open_model
from benchmarks.papers.chain import random_chain
from benchmarks.papers.drawing import EXACT, TextQuality, draw, family_of, name_of, samplers_of, text_quality
from benchmarks.papers.finding import Finding, plus_minus

WARM_UP = 3
TIMES = 1024  # the timed steps are spread over this T; the cost of a step depends on its time alone
PLAIN, CACHED = PAPERS = ("papers, plain", "papers, cached")
GROUPS = (16, 32, 64, 128)
STEPS = (64, 256, 1024, 4096)
FIRST_HITTING = (family_of(EXACT), family_of(Sampler(steps=1)))
QUICK = {"batches": [2], "groups": [2], "steps": [4], "reference_steps": 2, "repeats": 1}
QUICK |= {"sequences": 32, "scored": 4}


def chain_errors(digits: int, samplers: Sequence[Sampler], sequences: int) -> dict[str, float]:
    """The divergence of each sampler's bigrams from a known chain's, nats a bigram, by its name."""
    chain, threads = random_chain(), torch.get_num_threads()
    torch.set_num_threads(1)  # the products are tiny: threads would spend their time waiting for each other
    model, truth = chain.model(digits), chain.truth()
    found = {
        name_of(each): truth.divergence(draw(model, each, sequences, together=MAX_SAMPLES).tokens)
        for each in track(samplers, description="samplers on the chain")
    }
    torch.set_num_threads(threads)
    return found


def timed_parts(model: Model, samples: int, measured_steps: int, seed: int) -> Parts:
    """Mean seconds of the parts of a step over evenly spread times, on canvases masked by the forward process.

    Means, not medians: the whole runs beside them include all disturbances too.
    """
    papers = PapersSampler(model.denoiser, model.sub_tokenizer, seed)
    shape = (samples, model.denoiser.length)
    spread = [int((i + 0.5) * TIMES / measured_steps) for i in range(measured_steps)]
    measured = []
    for step in [spread[0]] * WARM_UP + spread:
        now, then = step_times(TIMES)[step]
        digits = model.sub_tokenizer.encode(torch.randint(model.denoiser.vocabulary_size, shape))
        sub_tokens = torch.where(torch.rand(digits.shape) < now, model.sub_tokenizer.mask_id, digits)
        measured.append(timed_step(papers, sub_tokens, now, then))
    return {name: mean(each[name] for each in measured[WARM_UP:]) for name in PAPERS_PARTS}


def cost_of(parts: Parts, steps: int, sub_tokens: int) -> dict[str, tuple[float, float]]:
    """Network evaluations and seconds of T steps for a batch of `sub_tokens`, by the names of `PAPERS`."""
    changing = steps * (1 - (1 - 1 / steps) ** sub_tokens)  # Proposition A.1
    evaluated, drawn = parts["network"] + parts["filter"], parts["draw"] + parts["unmask"]
    return {PLAIN: (steps, steps * (evaluated + drawn)), CACHED: (changing, changing * evaluated + steps * drawn)}


@dataclass(frozen=True)
class Way:
    """What one way to draw texts costs, B at a time."""

    samples: int  # B
    way: str  # the family of samplers, or one of `PAPERS`
    steps: int | None  # k or T, None if exact
    network_evaluations: float  # mean of a text; of the batch for `PAPERS`, whose samples go in lockstep
    seconds: float  # wall-clock time of the batch divided by B, median of all repeats
    divergence: float  # of its law on the chain, nats a bigram

    def __str__(self) -> str:
        if self.steps is None:
            return self.way
        return f"{self.way}, T = {self.steps}" if self.way in PAPERS else f"{self.way} = {self.steps}"


@dataclass(frozen=True)
class EqualQuality:
    """Ancestral sampling with T steps beside first-hitting of the same quality."""

    samples: int  # B
    steps: int  # T
    divergence: float  # of T steps, nats a bigram on the chain
    first_hitting: str  # the first-hitting sampler of this quality with the fewest evaluations
    times: dict[str, float]  # its speed divided by the speed of each ancestral way


class Comparison:
    """Ways to draw B texts, measured in turns; the texts are kept and judged later."""

    def __init__(self, model: Model, samples: int, samplers: Sequence[Sampler], errors: dict[str, float]) -> None:
        self.model = model
        self.samples = samples
        self.samplers = samplers
        self.errors = errors
        self.seconds: dict[Sampler, list[float]] = {each: [] for each in samplers}
        self.evaluations: dict[Sampler, float] = {}
        self.tokens: dict[Sampler, list[torch.Tensor]] = {each: [] for each in samplers}
        self.parts: list[Parts] = []

    def turn(self, seed: int, measured_steps: int) -> None:
        for sampler in self.samplers:
            drawn = draw(self.model, sampler, self.samples, seed, together=self.samples)
            self.seconds[sampler].append(drawn.seconds / self.samples)
            self.tokens[sampler].append(drawn.tokens)
            self.evaluations[sampler] = drawn.network_evaluations
        self.parts.append(timed_parts(self.model, self.samples, measured_steps, seed))

    def ways(self) -> list[Way]:
        ours = []
        for each in self.samplers:
            costs = self.evaluations[each], median(self.seconds[each])
            ours.append(Way(self.samples, family_of(each), each.steps, *costs, self.errors[name_of(each)]))
        parts = {name: median(each[name] for each in self.parts) for name in PAPERS_PARTS}
        sub_tokens = self.samples * self.model.denoiser.length * self.model.sub_tokenizer.sub_tokens_per_token
        theirs = [
            Way(self.samples, name, each.steps, evaluations, seconds / self.samples, self.errors[name_of(each)])
            for each in self.samplers
            if each.name == "ancestral" and each.steps
            for name, (evaluations, seconds) in cost_of(parts, each.steps, sub_tokens).items()
        ]
        return ours + theirs


def at_equal_quality(ways: Sequence[Way], tolerance: float) -> list[EqualQuality]:
    """For each T the fewest groups whose error is within a tolerance in nats; exact, if no groups are."""
    first_hitting = [each for each in ways if each.way in FIRST_HITTING]
    first_hitting.sort(key=lambda each: each.network_evaluations)
    found = []
    for steps in sorted({each.steps for each in ways if each.way in PAPERS and each.steps}):
        rivals = [each for each in ways if each.steps == steps and each not in first_hitting]
        level = rivals[0].divergence
        ours = next((each for each in first_hitting if each.divergence <= level + tolerance), first_hitting[-1])
        times = {each.way: each.seconds / ours.seconds for each in rivals}
        found.append(EqualQuality(ours.samples, steps, level, str(ours), times))
    return found


def ways_table(ways: Sequence[Way], about: str) -> Table:
    rows = []
    for each in ways:
        costs = f"{each.network_evaluations:.0f}", f"{each.seconds:.3f}", f"{each.divergence:.4f}"
        rows.append([str(each.samples), str(each), *costs])
    return Table(about, ["B", "sampler", "evaluations", "seconds a text", "its error on the chain, nats"], rows)


def equal_table(found: Sequence[EqualQuality], tolerance: float) -> Table:
    columns = ["B", "ancestral, T", "its error", "as good", "times faster than ours, skipping idle steps", *PAPERS]
    rows = []
    for each in found:
        times = [f"{each.times[name]:.1f}" for name in ("ancestral, T", *PAPERS)]
        rows.append([str(each.samples), str(each.steps), f"{each.divergence:.4f}", each.first_hitting, *times])
    return Table(f"First-hitting at equal quality: within {tolerance:.4f} nats on the chain", columns, rows)


def quality_table(qualities: dict[str, TextQuality], texts: int) -> Table:
    rows = [
        [name, plus_minus(each.nats_per_token), plus_minus(each.unigram_entropy)] for name, each in qualities.items()
    ]
    title = f"The {texts} texts that each sampler drew, by the model's own bound"
    return Table(title, ["sampler", "nats a token", "entropy of its tokens"], rows)


def draw_ways(figure: Figure, ways: Sequence[Way]) -> None:
    batches = sorted({each.samples for each in ways})
    panels = figure.subplots(1, len(batches), sharey=True, squeeze=False)[0]
    for axes, samples in zip(panels, batches, strict=True):
        of_batch = [each for each in ways if each.samples == samples]
        for number, way in enumerate(dict.fromkeys(each.way for each in of_batch)):
            chosen = sorted((each for each in of_batch if each.way == way), key=lambda each: each.seconds)
            style = "*" if way == "exact" else "o-"
            xs, ys = [each.seconds for each in chosen], [each.divergence for each in chosen]
            axes.plot(xs, ys, style, color=f"C{number}", label=way, markersize=12 if way == "exact" else 4)
        axes.set(xscale="log", yscale="log", xlabel="seconds a text", title=f"B = {samples}")
    panels[0].set(ylabel="error on the chain: bigram divergence, nats")
    panels[0].legend(fontsize=8)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], metavar="B", help="texts together")
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS, metavar="k", help="of first-hitting")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, metavar="T", help="of ancestral sampling")
    parser.add_argument("--reference-steps", type=int, default=32, help="of the papers' steps, timed (default: 32)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of all ways (default: 3)")
    parser.add_argument("--sequences", type=int, default=320, help="of the chain, a sampler (default: 320)")
    parser.add_argument("--scored", type=int, default=16, help="evaluations that score a text (default: 16)")


def measured(arguments: argparse.Namespace) -> Finding:
    model = open_model(arguments)
    samplers = samplers_of(arguments.groups, arguments.steps)
    digits = model.sub_tokenizer.sub_tokens_per_token
    errors = chain_errors(digits, samplers, arguments.sequences)
    tolerance = 2 * random_chain().floor(arguments.sequences)[1]
    comparisons = [Comparison(model, samples, samplers, errors) for samples in arguments.batches]
    for seed in track(range(arguments.repeats), description="turns"):
        for each in comparisons:
            each.turn(seed, arguments.reference_steps)
    ways = [way for each in comparisons for way in each.ways()]
    found = [equal for each in comparisons for equal in at_equal_quality(each.ways(), tolerance)]
    qualities, texts = judge(model, comparisons, arguments.scored)
    numbers = {
        "model": described(model),
        "sequences": arguments.sequences,
        "tolerance": tolerance,
        "chain": errors,
        "ways": ways,
        "papers_parts_seconds": {each.samples: each.parts for each in comparisons},
        "equal_quality": found,
        "texts": qualities,
    }
    about = f"Seconds a text, medians of {arguments.repeats} turns; {described(model)}"
    tables = [ways_table(ways, about), equal_table(found, tolerance), quality_table(qualities, texts)]
    return Finding(tables, numbers, lambda figure: draw_ways(figure, ways), inches=(10, 4.5))


def judge(model: Model, comparisons: Sequence[Comparison], evaluations: int) -> tuple[dict[str, TextQuality], int]:
    """The quality of all texts of each sampler, by its name, and their number."""
    found, texts = {}, 0
    for sampler in track(comparisons[0].samplers, description="texts scored"):
        tokens = torch.cat([ids for each in comparisons for ids in each.tokens[sampler]])
        found[name_of(sampler)] = text_quality(model, tokens, evaluations)
        texts = len(tokens)
    return found, texts
