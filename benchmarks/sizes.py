"""The two sizes at which an evaluation is measured: the official networks', and the model that ships."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from unmask_diffusion import ActiveSample, Model, PrimeDenoiser
from unmask_model_store import SHIPPED_MODEL, BundleError, find_bundle, open_bundle
from unmask_model_store.bundle import resolve_dtype
from unmask_model_store.store import default_model_dir
from unmask_service.machine import keep_freed_memory

from benchmarks.models import OFFICIAL, NetworkModel, plan_of, random_model, spread_out

SIZES = {"official": 1, "small": 8}  # samples of an evaluation


@dataclass(frozen=True)
class Size:
    """A model and how many samples share its evaluation.

    Attributes:
        name: official (random weights; one sample, everything masked) or small (a bundle; samples spread over their
            schedules).
        bundle: name or folder of the small model.
        samples: B.
    """

    name: str
    bundle: str
    samples: int

    def model(self, dtype: torch.dtype) -> NetworkModel:
        """The model, its blocks' projections in a dtype.

        Raises:
            SystemExit: there is no such bundle, or it holds no network; a line says what is wrong.
        """
        if self.name == "official":
            return random_model(OFFICIAL, dtype)
        try:
            bundle = open_bundle(find_bundle(self.bundle, default_model_dir()), dtype)
        except BundleError as error:
            raise SystemExit(str(error)) from error
        if not isinstance(bundle.denoiser, PrimeDenoiser):
            raise SystemExit(f"{self.bundle} has no network whose evaluation could be measured")
        return NetworkModel(bundle.denoiser, bundle.sub_tokenizer)

    def states(self, model: Model, shift: float) -> list[ActiveSample]:
        """Samples for an evaluation that reveals one sub-token each."""
        plan = plan_of(model, self.samples, seed=1)
        if self.name == "official":
            return [ActiveSample.start(model, plan, index) for index in range(self.samples)]
        return spread_out(model, plan, shift)


def add_size_options(parser: argparse.ArgumentParser) -> None:
    """`--size`, `--model` and `--threads`."""
    parser.add_argument("--size", choices=(*SIZES, "both"), default="official", help="(default: official)")
    parser.add_argument("--model", default=SHIPPED_MODEL, help="a bundle's name or folder, for --size small")
    parser.add_argument("--threads", type=int, help="threads of the arithmetic (default: torch's choice)")


def sizes_of(arguments: argparse.Namespace) -> list[Size]:
    """What the options say; sets memory and torch's threads as the server does."""
    keep_freed_memory()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    return [Size(name, arguments.model, SIZES[name]) for name in SIZES if arguments.size in (name, "both")]


def dtypes_here() -> Sequence[torch.dtype]:
    """The dtypes that are worth measuring, the server's own choice first: no bfloat16 where it would be emulated."""
    return list(dict.fromkeys((resolve_dtype("auto", torch.device("cpu")), torch.float32)))
