"""A tick of random weights at official size: time, share of the trunk's products, launches, copies, waits, memory."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile
from unmask_diffusion import ActiveSample, Model, NetworkShape, evaluate

from benchmarks.evaluation.products import BareProducts, products_of
from benchmarks.gpu.part import Options, Result, run_part
from benchmarks.models import OFFICIAL, plan_of, random_model, spread_out

SAMPLES = (1, 8, 32)
SMALL = NetworkShape(32, 101, 2, 11, hidden_size=48, blocks=2, heads=4)
# calls of CUDA's runtime by what they are
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
COPIES, WAITS = ("cudaMemcpyAsync",), ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def calls_of(model: Model, samples: Sequence[ActiveSample]) -> Counter[str]:
    """What an evaluation calls of CUDA's runtime, and its kernels and copies on the device, by name."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        evaluate(model, samples)
    found: Counter[str] = Counter()
    for event in profiled.events() or ():
        if str(event.device_type).endswith("CPU"):
            found[event.name] += 1
    return found


def results(options: Options) -> Iterator[Result]:
    dtype = torch.bfloat16 if options.gpu else torch.float32
    model = random_model(SMALL if options.small else OFFICIAL, dtype)
    model.denoiser.to(options.device)
    for count in (1, 2) if options.small else SAMPLES:
        samples = spread_out(model, plan_of(model, count, seed=1), 0.5)
        name = f"B = {count}"
        if options.gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = options.seconds(partial(evaluate, model, samples), 3 if options.small else 15)
        yield Result(f"{name}: a tick", 1000 * seconds, "ms")
        if options.gpu:
            yield Result(f"{name}: peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")
        trunk = [each for each in products_of(model, samples) if each.kind != "head"]
        bare = BareProducts(trunk, dtype, options.device)
        products = sorted(sum(bare.seconds().values()) for _ in range(5))[2]
        yield Result(f"{name}: the trunk's bare products", 1000 * products, "ms", note=f"{products / seconds:.0%}")
        if options.gpu:
            calls = calls_of(model, samples)
            for about, names in (("launches", LAUNCHES), ("copies", COPIES), ("waits", WAITS)):
                yield Result(f"{name}: {about} a tick", sum(calls[each] for each in names))


if __name__ == "__main__":
    run_part(results)
