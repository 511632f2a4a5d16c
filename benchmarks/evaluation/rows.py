"""An evaluation against the papers' algorithm and against its own bare matrix products, measured in turns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import comb

import torch
from unmask_diffusion import ActiveSample, Model, PrimeDenoiser, evaluate

from benchmarks.evaluation.clock import Parts, in_turns, timed_evaluation
from benchmarks.evaluation.papers_sampler import PapersNetwork, PapersSampler, step_times, timed_step
from benchmarks.evaluation.products import BareProducts, Product, products_of
from benchmarks.evaluation.sizes import Size, measured_alone
from benchmarks.machine_limits import copy_bandwidth, product_rate, seconds_of
from benchmarks.models import OFFICIAL, BareModel, half_revealed, plan_of, random_model, spread_out

CPU = torch.device("cpu")
STEPS = 1024  # T of the papers' sampler, one step of which is timed
SPLIT = ("trunk", "head and draw", "rest")
INSIDE_THE_TRUNK = ("products", "attention", "elementwise")


@dataclass(frozen=True)
class Limits:
    """What the machine does at best."""

    product_rates: dict[str, float]  # dtype → floating-point operations a second
    copy_bandwidth: float  # bytes a second, read and written

    def least_seconds(self, products: Sequence[Product], dtype: torch.dtype) -> float:
        """Seconds of products if each ran at the limit that binds it."""
        rate = self.product_rates[name_of(dtype)]
        return sum(max(p.flops / rate, p.bytes_moved(dtype) / self.copy_bandwidth) for p in products)


@dataclass(frozen=True)
class Row:
    """An evaluation in one dtype of the blocks' projections. All times are medians in seconds."""

    dtype: str  # of the blocks' projections
    seconds: float  # of an evaluation
    ratio_to_reference: float  # the papers' seconds divided by these
    ratio_to_matmul: float  # these divided by those of the bare products
    peak_bytes: int | None  # most resident memory of a process that does nothing else
    split: Parts  # trunk, head and draw, rest
    inside_the_trunk: Parts  # products (with GELU), attention, elementwise
    outside_the_trunk: float  # the share of the evaluation that isn't the trunk
    bare_products: Parts  # linear layers, attention, head; each in this row's dtype or float32, whichever was faster
    flops: int  # of these products; each operand read once, each result written once, in the row's dtype
    bytes_moved: int
    # the least seconds that the machine's limits allow for these products, divided by `seconds`
    fraction_of_limit: float


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def best_of(limits: Limits, again: Limits) -> Limits:
    """The higher of two measurements of each limit."""
    rates = {name: max(rate, again.product_rates[name]) for name, rate in limits.product_rates.items()}
    return Limits(rates, max(limits.copy_bandwidth, again.copy_bandwidth))


def limits_here(dtypes: Sequence[torch.dtype]) -> Limits:
    return Limits({name_of(dtype): product_rate(dtype, CPU) for dtype in dtypes}, copy_bandwidth(CPU))


def measure(
    size: Size, models: Mapping[torch.dtype, BareModel[PrimeDenoiser]], rounds: int, reference_rounds: int
) -> tuple[list[Row], Parts, Limits]:
    """Evaluate the same model in several dtypes, float32 among them, in turns with bare products and the papers' step.

    Returns a row for each dtype, the seconds of the papers' step by its parts, and the machine's limits, the better of
    before and after.
    """
    limits = limits_here(list(models))
    products = {dtype: products_of(model, size.states(model, 0.5)) for dtype, model in models.items()}
    bare = {dtype: BareProducts(products[dtype], dtype, CPU) for dtype in models}

    def ours(model: Model, turn: int) -> Parts:
        return timed_evaluation(model, size.states(model, (turn + 0.5) / rounds))

    ways: dict[str, Callable[[int], Parts]] = {f"ours {dtype}": partial(ours, model) for dtype, model in models.items()}
    ways |= {f"bare {dtype}": bare[dtype].seconds for dtype in models}
    ways["reference"] = _papers_step(size, models[torch.float32])
    counts = dict.fromkeys(ways, rounds) | {"reference": reference_rounds}
    medians = in_turns(ways, counts, f"{size.name}, {size.samples} at a time")
    limits = best_of(limits, limits_here(list(models)))
    rows = [_row(size, dtype, medians, products[dtype], limits) for dtype in models]
    return rows, medians["reference"], limits


def _papers_step(size: Size, model: BareModel[PrimeDenoiser]) -> Callable[[int], Parts]:
    """A step of the papers' sampler on the same samples."""
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
    """The share of head and draw where half of all digits are revealed, one sample an evaluation.

    The head reads fewer classes the more digits the next token shows already; in a random half the number of these
    digits is binomial, and the mean share is weighted accordingly.
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


SAMPLES, ROUNDS = 16, 30


def measure_on_gpu() -> dict[str, object]:
    """A tick of 16 full canvases in bfloat16, spread over their schedules, beside the bare products of its trunk.

    Attention's products are torch's fused attention. "fraction_of_matmul_limit" is against these products as measured,
    "fraction_of_product_rate" against their number at the rate of large square products.
    """
    device = torch.device("cuda")
    model = random_model(OFFICIAL, torch.bfloat16)
    model.denoiser.to(device)
    samples = spread_out(model, plan_of(model, SAMPLES, seed=1), 0.5)
    trunk = [each for each in products_of(model, samples) if each.kind != "head"]
    bare = BareProducts(trunk, torch.bfloat16, device)

    def tick(_: int) -> Parts:
        return {"total": seconds_of(lambda: evaluate(model, samples), device)}

    ways = {"tick": tick, "bare": lambda _: {"total": sum(bare.seconds().values())}}
    medians = in_turns(ways, dict.fromkeys(ways, ROUNDS), f"a tick on {torch.cuda.get_device_name()}")
    seconds, products = medians["tick"]["total"], medians["bare"]["total"]
    rate = product_rate(torch.bfloat16, device)
    return {
        "device": torch.cuda.get_device_name(),
        "samples": SAMPLES,
        "seconds": seconds,
        "bare_products_of_the_trunk": products,
        "bfloat16_gflops": rate / 1e9,
        "fraction_of_matmul_limit": products / seconds,
        "fraction_of_product_rate": sum(each.flops for each in trunk) / rate / seconds,
    }
