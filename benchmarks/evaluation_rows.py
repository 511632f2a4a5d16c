"""An evaluation against the papers' algorithm and against its own bare matrix products, measured in turns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import comb

import torch
from unmask_diffusion import ActiveSample, Model

from benchmarks.clock import Parts, in_turns, timed_evaluation
from benchmarks.evaluation_memory import measured_alone
from benchmarks.limits import copy_bandwidth, product_rate
from benchmarks.models import NetworkModel, half_revealed
from benchmarks.papers_network import PapersNetwork
from benchmarks.papers_reference import PapersSampler, step_times, timed_step
from benchmarks.products import BareProducts, Product, products_of
from benchmarks.sizes import Size

CPU = torch.device("cpu")
STEPS = 1024  # T of the papers' sampler, one step of which is timed
SPLIT = ("trunk", "head and draw", "rest")
INSIDE_THE_TRUNK = ("products", "attention", "elementwise")


@dataclass(frozen=True)
class Limits:
    """What the machine can do at best.

    Attributes:
        product_rates: dtype → floating-point operations a second.
        copy_bandwidth: bytes a second, read and written.
    """

    product_rates: dict[str, float]
    copy_bandwidth: float

    def least_seconds(self, products: Sequence[Product], dtype: torch.dtype) -> float:
        """What products would take if each ran at the limit that binds it."""
        rate = self.product_rates[name_of(dtype)]
        return sum(max(p.flops / rate, p.bytes_moved(dtype) / self.copy_bandwidth) for p in products)


@dataclass(frozen=True)
class Row:
    """An evaluation in one dtype of the blocks' projections. All times are medians in seconds.

    Attributes:
        dtype: of the blocks' projections.
        seconds: of an evaluation.
        ratio_to_reference: the papers' seconds divided by these.
        ratio_to_matmul: these divided by those of the bare products.
        peak_bytes: most resident memory of a process that does nothing else.
        split: trunk, head and draw, rest.
        inside_the_trunk: products (with GELU), attention, elementwise.
        outside_the_trunk: the share of the evaluation that isn't the trunk.
        bare_products: linear layers, attention, head; each in this row's dtype or float32, whichever was faster.
        flops, bytes_moved: of these products; each operand read once, each result written once, in the row's dtype.
        fraction_of_limit: the least seconds that the machine's limits allow for these products, divided by `seconds`.
    """

    dtype: str
    seconds: float
    ratio_to_reference: float
    ratio_to_matmul: float
    peak_bytes: int | None
    split: Parts
    inside_the_trunk: Parts
    outside_the_trunk: float
    bare_products: Parts
    flops: int
    bytes_moved: int
    fraction_of_limit: float


def name_of(dtype: torch.dtype) -> str:
    """torch.bfloat16 → "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def best_of(limits: Limits, again: Limits) -> Limits:
    """The higher of two measurements of each limit."""
    rates = {name: max(rate, again.product_rates[name]) for name, rate in limits.product_rates.items()}
    return Limits(rates, max(limits.copy_bandwidth, again.copy_bandwidth))


def limits_here(dtypes: Sequence[torch.dtype]) -> Limits:
    """Measure the machine."""
    return Limits({name_of(dtype): product_rate(dtype, CPU) for dtype in dtypes}, copy_bandwidth(CPU))


def measure(
    size: Size, models: Mapping[torch.dtype, NetworkModel], rounds: int, reference_rounds: int
) -> tuple[list[Row], Parts, Limits]:
    """Evaluate in turns with the bare products and the papers' step.

    Args:
        size: which samples to evaluate.
        models: the same model in several dtypes, float32 among them.
        rounds: evaluations of each.
        reference_rounds: steps of the papers' sampler, at most as many.

    Returns:
        A row a dtype, the seconds of the papers' step by its parts, and the machine's limits: the better of what it
        did before and after.
    """
    limits = limits_here(list(models))
    products = {dtype: products_of(model, size.states(model, 0.5)) for dtype, model in models.items()}
    bare = {dtype: BareProducts(products[dtype], dtype, CPU) for dtype in models}

    def ours(model: Model, turn: int) -> Parts:
        return timed_evaluation(model, size.states(model, (turn + 0.5) / rounds))

    ways: dict[str, Callable[[int], Parts]] = {f"ours {dtype}": partial(ours, model) for dtype, model in models.items()}
    ways |= {f"bare {dtype}": partial(_bare, bare[dtype]) for dtype in models}
    ways["reference"] = _papers_step(size, models[torch.float32])
    counts = dict.fromkeys(ways, rounds) | {"reference": reference_rounds}
    medians = in_turns(ways, counts, f"{size.name}, {size.samples} at a time")
    limits = best_of(limits, limits_here(list(models)))
    rows = [_row(size, dtype, medians, products[dtype], limits) for dtype in models]
    return rows, medians["reference"], limits


def _bare(products: BareProducts, _: int) -> Parts:
    return {str(kind): seconds for kind, seconds in products.seconds().items()}


def _papers_step(size: Size, model: NetworkModel) -> Callable[[int], Parts]:
    """A step of the papers' sampler, on the samples that ours evaluates."""
    papers = PapersSampler(PapersNetwork(model.denoiser), model.sub_tokenizer, seed=1)
    sub_tokens = torch.stack([each.digits for each in size.states(model, 0.5)])
    return lambda _: timed_step(papers, sub_tokens, *step_times(STEPS)[0])


def _row(size: Size, dtype: torch.dtype, medians: dict[str, Parts], products: Sequence[Product], limits: Limits) -> Row:
    parts = medians[f"ours {dtype}"]
    allowed = [dtype, torch.float32]
    bare = {kind: min(medians[f"bare {each}"][kind] for each in allowed) for kind in medians[f"bare {dtype}"]}
    seconds = parts["total"]
    return Row(
        dtype=name_of(dtype),
        seconds=seconds,
        ratio_to_reference=medians["reference"]["total"] / seconds,
        ratio_to_matmul=seconds / sum(bare.values()),
        peak_bytes=measured_alone(size, dtype),
        split={name: parts[name] for name in SPLIT},
        inside_the_trunk={name: parts[name] for name in INSIDE_THE_TRUNK},
        outside_the_trunk=(parts["head and draw"] + parts["rest"]) / seconds,
        bare_products=bare,
        flops=sum(each.flops for each in products),
        bytes_moved=sum(each.bytes_moved(dtype) for each in products),
        fraction_of_limit=limits.least_seconds(products, dtype) / seconds,
    )


def measure_half_revealed(model: Model, rounds: int) -> dict[str, object]:
    """The head and the draw where half of all digits are revealed, one sample an evaluation.

    Whether the token that is revealed next shows 0, 1, … of its other digits already decides what the head must read;
    in a random half these numbers are binomial, and the mean share is weighted accordingly.
    """
    samples = half_revealed(model)
    ways = {str(shown): partial(_alone, model, sample) for shown, sample in enumerate(samples)}
    medians = in_turns(ways, dict.fromkeys(ways, rounds), "half of the digits revealed").values()
    weights = [comb(len(samples) - 1, shown) for shown in range(len(samples))]
    drawing, total = (
        sum(weight * parts[name] for weight, parts in zip(weights, medians, strict=True))
        for name in ("head and draw", "total")
    )
    return {
        "head_and_draw_share": drawing / total,
        "share_by_digits_shown": [parts["head and draw"] / parts["total"] for parts in medians],
    }


def _alone(model: Model, sample: ActiveSample, _: int) -> Parts:
    return timed_evaluation(model, [sample])
