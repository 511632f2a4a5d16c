"""Why the draw's noise needs more than 24 random bits: rare classes lose their mass, and text its variety.

"Masked Diffusion Models are Secretly Time-Agnostic…" traced the low entropy of generated text to categorical draws
from float32 uniforms. Two experiments, neither a setting of the server:

  rare mass   50,000 classes of probability eps each beside a common one: the probability that a rare class is drawn,
              computed and counted. Counted with the words that `unmask_kernels.draw` uses: noise doesn't depend on
              eps, so a row's noise serves every eps, and of equal classes only the greatest noise matters.
  entropy     of the tokens of a text, with 24-bit noise and without: by the exact sampler, and by MDLM's, where the
              mask is one more class of each draw and T time steps make all others rarer by as much.

    python -m benchmarks.precision [--quick] [--json [FILE]] [--png FILE]
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from math import sqrt
from pathlib import Path

from matplotlib import pyplot
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.options import add_model_options, described, open_model, parser_of, run_benchmark
from benchmarks.rare_mass import RARE, RareMass, measure_rare_mass
from benchmarks.text_entropy import Entropies, compare_exact, compare_mask_among_classes

EPSILONS = (1e-9, 3e-9, 1e-8, 3e-8, 1e-7, 3e-7, 1e-6, 3e-6, 1e-5)
QUICK = {"rows": 64, "samples": 2, "steps": 8}
QUICK_EPSILONS = (1e-6,)


def tables(masses: Sequence[RareMass], entropies: Sequence[Entropies], about: str) -> list[Table]:
    """What is printed."""
    first = Table("eps", "true", title=f"mass of {RARE} rare classes, {masses[0].rows} rows drawn")
    for column in ("24 bits, computed", "drawn", "64 bits, computed", "drawn"):
        first.add_column(column, justify="right")
    for each in masses:
        of_24, of_64 = f"{each.drawn_24_bits:.3g}", f"{each.drawn_64_bits:.3g}"
        computed = f"{each.computed_24_bits:.3g}", f"{each.computed_64_bits:.3g}"
        first.add_row(f"{each.eps:.0e}", f"{each.true:.3g}", computed[0], of_24, computed[1], of_64)
    second = Table("sampler", "samples", title=f"unigram entropy of a text, nats; {about}")
    for column in ("exact noise", "24 bits", "difference"):
        second.add_column(column, justify="right")
    for one in entropies:
        name = one.sampler if one.steps is None else f"{one.sampler}, T = {one.steps}"
        values = [f"{mean:.4f} ± {error:.4f}" for mean, error in (one.exact_noise, one.noise_24_bits, one.difference)]
        second.add_row(name, str(one.samples), *values)
    return [first, second]


def plot(masses: Sequence[RareMass], file: Path) -> None:
    """Draw the rare mass against the true one, both axes logarithmic; counts with one standard error."""
    figure, axes = pyplot.subplots(figsize=(6.5, 5), layout="constrained")
    true = [each.true for each in masses]
    axes.plot(true, true, color="grey", linewidth=4, alpha=0.4, label="as it should be")
    for bits, colour, marker in ((24, "tab:orange", "s"), (64, "tab:blue", "o")):
        label = "uniform of 24 bits" if bits == 24 else "our draw (64 bits)"
        axes.plot(true, [getattr(each, f"computed_{bits}_bits") for each in masses], color=colour, label=label)
        drawn = [(each.true, getattr(each, f"drawn_{bits}_bits"), each.rows) for each in masses]
        seen = [(x, y, sqrt(y / rows)) for x, y, rows in drawn if y > 0]  # none: below the plot
        if seen:
            x, y, errors = zip(*seen, strict=True)
            axes.errorbar(x, y, errors, fmt=marker, color=colour, markersize=5, capsize=2, label=f"{label}, drawn")
    lowest = min(true) / 3
    axes.set(xscale="log", yscale="log", ylim=(lowest, 1), xlabel="true rare mass", ylabel="rare mass drawn")
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = parser_of(__doc__)
    add_model_options(parser)
    parser.add_argument("--rows", type=int, default=40_000, help="of 50,001 classes (default: 40000)")
    parser.add_argument("--samples", type=int, default=64, help="texts of each sampler (default: 64)")
    parser.add_argument("--steps", type=int, default=1024, help="T of MDLM's sampler (default: 1024)")
    parser.add_argument("--processes", type=int, help="that draw rows at a time (default: one a core)")
    parser.add_argument("--quick", action="store_true", help="sizes that only show that everything works")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the plot here")
    return parser


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure everything, print and plot it."""
    if arguments.quick:
        vars(arguments).update(QUICK)
    model = open_model(arguments)
    masses = measure_rare_mass(QUICK_EPSILONS if arguments.quick else EPSILONS, arguments.rows, arguments.processes)
    entropies = [
        compare_exact(model, arguments.samples),
        compare_mask_among_classes(model, arguments.samples, arguments.steps),
    ]
    for table in tables(masses, entropies, described(model)):
        Console().print(table)
    if arguments.png:
        plot(masses, arguments.png)
    return {
        "model": described(model),
        "machine": machine(),
        "rare_classes": RARE,
        "rare_mass": [asdict(each) for each in masses],
        "unigram_entropy_nats": [asdict(each) for each in entropies],
    }


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    run_benchmark(options(), measured, given)


if __name__ == "__main__":
    main()
