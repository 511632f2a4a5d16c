"""Run all parts on the GPU, each in its own process and time, and print one table.

    benchmarks/gpu/run.sh                        on a GPU: at most six minutes
    benchmarks/gpu/run.sh --device cpu           the same code on small sizes without one: shows that it runs

Results are written as they come: FOLDER/PART.jsonl has a line of JSON a result, FOLDER/results.json all of them. A part
whose packages are missing is skipped with a line; one that takes longer than its time is ended and keeps what it has.
Exit code 1: something that must hold did not, or a part failed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Part:
    """A module beside this one."""

    name: str
    about: str
    seconds: int  # its time
    needs: tuple[str, ...] = ("torch",)

    @property
    def missing(self) -> list[str]:
        return [name for name in self.needs if find_spec(name) is None]


MODEL = ("torch", "numpy", "safetensors", "tokenizers", "httpx", "pydantic", "rich")
PARTS = (
    Part("correctness", "every kernel against its reference, and alone against in company", 80),
    Part("sampler", "the whole sampler against the CPU and the known laws", 70, (*MODEL, "huggingface_hub")),
    Part("limits", "the machine's limits, and the kernels against them", 60),
    Part("evaluation", "a tick at official size: time, launches, waits, memory", 80, MODEL),
    Part("serving", "the serving loop, with and without speculation", 70, (*MODEL, "prometheus_client", "jinja2")),
)


SLOWER = 5  # how much more time a part has without a GPU, where other processes may be busy too


def run(part: Part, out: Path, device: str) -> str:
    """Run a part, on a CPU with small sizes; return how it ended."""
    if part.missing:
        return f"skipped: this Python lacks {', '.join(part.missing)} (make gpu-wheels)"
    command = [sys.executable, "-m", f"benchmarks.gpu.{part.name}", "--device", device]
    command += ["--out", str(out / f"{part.name}.jsonl"), *(["--small"] if device == "cpu" else [])]
    seconds = part.seconds * (SLOWER if device == "cpu" else 1)
    with (out / f"{part.name}.log").open("w") as log:
        try:
            code = subprocess.run(command, stdout=log, stderr=log, timeout=seconds, check=False).returncode
        except subprocess.TimeoutExpired:
            return f"ended after {seconds} s"
    if not code:
        return "done"
    lines = (out / f"{part.name}.log").read_text().strip().splitlines()
    return f"failed: {lines[-1] if lines else f'exit code {code}'}"


def results_of(file: Path) -> list[dict[str, Any]]:
    """What a part has written, without a line that its end has cut."""
    found = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


def line_of(result: dict[str, Any]) -> str:
    held = {True: "ok", False: "NOT HELD", None: ""}[result["held"]]
    value = "" if result["value"] is None else f"{result['value']:.4g} {result['unit']}"
    return f"  {result['name']:<72} {value:>16}  {held:<9}{result['note']}".rstrip()


def main() -> int:
    """Run the parts and print their table; return the exit code."""
    parser = argparse.ArgumentParser("benchmarks/gpu/run.sh", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    default = Path(os.environ.get("OUT", "build/gpu-results"))
    parser.add_argument("--out", type=Path, default=default, help="folder of the results (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="these parts alone")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("*.jsonl"), *out.glob("*.log")):
        old.unlink()
    written: dict[str, Any] = {"device": arguments.device, "parts": {}}
    for part in PARTS:
        if arguments.only and part.name not in arguments.only:
            continue
        begun = time.monotonic()
        ended = run(part, out, arguments.device)
        seconds = time.monotonic() - begun
        print(f"{part.name}: {ended}, {seconds:.0f} s", flush=True)
        found = results_of(out / f"{part.name}.jsonl")
        written["parts"][part.name] = {"ended": ended, "seconds": round(seconds, 1), "results": found}
        (out / "results.json").write_text(json.dumps(written, indent=1) + "\n")
    for name, each in written["parts"].items():
        print(f"\n{name} ({each['ended']})")
        for result in each["results"]:
            print(line_of(result))
    wrong = [
        f"{name}: {result['name']}"
        for name, each in written["parts"].items()
        for result in each["results"]
        if result["held"] is False
    ]
    wrong += [
        f"{name} {each['ended']}" for name, each in written["parts"].items() if each["ended"].startswith("failed")
    ]
    for each in wrong:
        print(f"NOT HELD  {each}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
