"""The resident memory of a process that makes a model and evaluates it, and does nothing else.

python -m benchmarks.evaluation_memory --size official|small --dtype bfloat16
"""

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch
from unmask_diffusion import evaluate

from benchmarks.options import interpreter
from benchmarks.sizes import Size, add_size_options, sizes_of

EVALUATIONS = 3


def peak_bytes() -> int:
    """The most memory that this process has had resident: of its own program, whatever its parent's was."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("/proc/self/status names no VmHWM")


def measured_alone(size: Size, dtype: torch.dtype) -> int | None:
    """`peak_bytes` of a process of its own; None where the system doesn't tell."""
    if not Path("/proc/self/status").exists():
        return None
    options = ["--size", size.name, "--model", size.bundle, "--threads", str(torch.get_num_threads())]
    command = [*interpreter(), "-m", "benchmarks.evaluation_memory", *options, "--dtype", str(dtype)[6:]]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main(given: Sequence[str] | None = None) -> None:
    """Evaluate, and print the peak in bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size_options(parser)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args(given)
    (size,) = sizes_of(arguments)
    model = size.model(getattr(torch, arguments.dtype))
    for turn in range(EVALUATIONS):
        evaluate(model, size.states(model, turn / EVALUATIONS))
    print(peak_bytes())


if __name__ == "__main__":
    main()
