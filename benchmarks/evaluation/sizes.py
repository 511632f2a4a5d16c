"""The two sizes at which an evaluation is measured, and the peak memory of a process that does nothing else.

python -m benchmarks.evaluation.sizes --size official|small --dtype bfloat16      prints that memory in bytes
"""

import argparse
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from unmask_diffusion import ActiveSample, Model, PrimeDenoiser, evaluate
from unmask_model_store.bundle import resolve_dtype

from benchmarks.harness import interpreter
from benchmarks.models import (
    OFFICIAL,
    BareModel,
    add_model_options,
    bundle_of,
    plan_of,
    prepare,
    random_model,
    spread_out,
    without_cache,
)

SIZES = {"official": 1, "small": 8}  # samples of an evaluation
PICTURES = "cifar10"  # measured by `pictures.py`
EVALUATIONS = 3  # in the process whose memory is measured
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Size:
    """A model and the number of samples that share its evaluation."""

    name: str  # official: random weights, all masked; small: a bundle, samples spread over their schedules
    bundle: str  # name or folder of the small model
    samples: int  # B

    def model(self, dtype: torch.dtype) -> BareModel[PrimeDenoiser]:
        """The model with its blocks' projections in a dtype; exit with a line if the bundle has no network."""
        if self.name == "official":
            return random_model(OFFICIAL, dtype)
        bundle = bundle_of(self.bundle, dtype)
        if not isinstance(bundle.denoiser, PrimeDenoiser):
            raise SystemExit(f"{self.bundle} has no network whose evaluation could be measured")
        return without_cache(BareModel(bundle.denoiser, bundle.sub_tokenizer))

    def states(self, model: Model, shift: float) -> list[ActiveSample]:
        """The samples of an evaluation; each of them reveals one sub-token."""
        plan = plan_of(model, self.samples, seed=1)
        if self.name == "official":
            return [ActiveSample.start(model, plan, index) for index in range(self.samples)]
        return spread_out(model, plan, shift)


def add_size_options(parser: argparse.ArgumentParser) -> None:
    """Add `--size`, `--model` and `--threads`."""
    parser.add_argument("--size", choices=(*SIZES, "both", PICTURES), default="official", help="(default: official)")
    add_model_options(parser, dtype=False)


def sizes_of(arguments: argparse.Namespace) -> list[Size]:
    prepare(arguments)
    return [Size(name, arguments.model, SIZES[name]) for name in SIZES if arguments.size in (name, "both")]


def dtypes_here() -> Sequence[torch.dtype]:
    """The dtypes to measure, the server's choice first: no bfloat16 where it would be emulated."""
    return list(dict.fromkeys((resolve_dtype("auto", torch.device("cpu")), torch.float32)))


def peak_bytes() -> int:
    """The most resident memory that this process has had, whatever its parent had."""
    return next(int(line.split()[1]) << 10 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))


def measured_alone(size: Size, dtype: torch.dtype) -> int | None:
    """`peak_bytes` of a process that only evaluates; None where the system does not tell."""
    if not STATUS.exists():
        return None
    options = ["--size", size.name, "--model", size.bundle, "--threads", str(torch.get_num_threads())]
    command = [*interpreter(), "-m", "benchmarks.evaluation.sizes", *options, "--dtype", str(dtype)[6:]]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    """Evaluate, and print the peak memory in bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size_options(parser)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    (size,) = sizes_of(arguments)
    model = size.model(getattr(torch, arguments.dtype))
    for turn in range(EVALUATIONS):
        evaluate(model, size.states(model, turn / EVALUATIONS))
    print(peak_bytes())


if __name__ == "__main__":
    main()
