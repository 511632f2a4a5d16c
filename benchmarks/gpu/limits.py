"""The machine's limits, then each kernel against the one that binds it. Needs torch alone."""

from collections.abc import Iterator

import torch

from benchmarks.gpu.part import Options, Result, run_part
from benchmarks.kernels.__main__ import cases, measure
from benchmarks.machine_limits import copy_bandwidth, product_rate

# rows of logits: a step of one sample, of many, of a batch that speculates
ROWS = (1, 64, 1024)


def results(options: Options) -> Iterator[Result]:
    megabytes, size = (4, 256) if options.small else (1024, 8192)
    yield Result("copy, read and written", copy_bandwidth(options.device, megabytes) / 1e9, "GB/s")
    for dtype in (torch.float32, torch.bfloat16):
        rate = product_rate(dtype, options.device, size)
        yield Result(f"square product of {size} in {str(dtype)[6:]}", rate / 1e12, "TFLOP/s")
    for rows in (2,) if options.small else ROWS:
        for case in cases(rows, 101 if options.small else 50257, options.device):
            row = measure(case, options.device, 0 if options.small else 0.2)
            note = f"{row.fraction_of_limit:.0%} of {row.limit}, {row.ratio_to_reference:.2f} times the reference"
            if row.ratio_to_matmul is not None:
                note += f", {row.ratio_to_matmul:.2f} of the bare product's time"
            yield Result(f"{row.kernel}, {row.shape}", 1e6 * row.seconds, "us", note=note)


if __name__ == "__main__":
    run_part(results)
