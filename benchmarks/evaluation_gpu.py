"""The row for a GPU: a whole tick at official size against the matrix products of its trunk."""

import torch
from unmask_diffusion import evaluate

from benchmarks.clock import Parts, in_turns
from benchmarks.limits import product_rate, seconds_of
from benchmarks.models import OFFICIAL, plan_of, random_model, spread_out
from benchmarks.products import BareProducts, products_of

SAMPLES, ROUNDS = 16, 30


def measure_on_gpu() -> dict[str, object]:
    """A tick of 16 full canvases in bfloat16, spread over their schedules, beside its trunk's bare products.

    Attention's products are those of torch's fused attention. "fraction_of_matmul_limit" is against these products as
    measured, "fraction_of_product_rate" against their number at the rate of large square products.
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
