"""What is evaluated: bundles, a random model of the official size, samples at chosen places of their schedules."""

import argparse
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from unmask_diffusion import (
    ActiveSample,
    AddBos,
    GenerationRequest,
    Model,
    NetworkShape,
    Painter,
    Plan,
    PrimeDenoiser,
    SubTokenizer,
    initial_state,
    make_plan,
)
from unmask_model_store import SHIPPED_MODEL, Bundle, BundleError, find_bundle, open_bundle
from unmask_model_store.bundle import SkipInitialisation
from unmask_model_store.store import default_model_dir
from unmask_service.machine import keep_freed_memory

D = TypeVar("D")
OFFICIAL = NetworkShape(
    length=1024, vocabulary_size=50257, sub_tokens_per_token=4, base=15, hidden_size=768, blocks=12, heads=12
)


def add_model_options(parser: argparse.ArgumentParser, dtype: bool = True) -> None:
    """Add `--model`, `--threads` and, unless a benchmark chooses it itself, `--dtype`."""
    parser.add_argument("--model", default=SHIPPED_MODEL, help="name or folder of a bundle (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="threads of the arithmetic (default: torch's choice)")
    if dtype:
        help_text = "of the blocks' projections: auto (as the server has it), float32, bfloat16"
        parser.add_argument("--dtype", default="auto", help=help_text)


def prepare(arguments: argparse.Namespace) -> None:
    """Set memory and torch's threads as the server does."""
    keep_freed_memory()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)


def open_model(arguments: argparse.Namespace) -> Bundle:
    """Open the bundle that the options name, on the CPU; exit with a line if there is none or it is broken."""
    prepare(arguments)
    return bundle_of(arguments.model, arguments.dtype)


def bundle_of(name: str, dtype: str | torch.dtype) -> Bundle:
    """Open a bundle by name or folder; exit with a line if there is none or it is broken."""
    try:
        return open_bundle(find_bundle(name, default_model_dir()), dtype)
    except BundleError as error:
        raise SystemExit(str(error)) from error


def described(bundle: Bundle) -> str:
    config = bundle.config
    digits = f"l {config.sub_tokens_per_token}, b {config.base}"
    return f"{bundle.name} (L {config.length}, C {config.vocabulary_size}, {digits}), {str(bundle.dtype)[6:]}"


@dataclass(frozen=True)
class BareModel(Generic[D]):
    """A denoiser and its codes, without text. Satisfies `unmask_diffusion.Model`."""

    denoiser: D
    sub_tokenizer: SubTokenizer
    tokenizer: None = None
    end_token_ids: tuple[()] = ()
    full_canvas: bool = True
    carry_over: bool = True
    clock: int = 1
    bos_token_id: int | None = None
    add_bos: AddBos = "never"
    image: Painter | None = None


def random_model(shape: NetworkShape, dtype: torch.dtype) -> BareModel[PrimeDenoiser]:
    """A model of random weights, the same in every dtype but for rounding; its logits are normal with deviation 1.

    No weight is in memory in another dtype than its own, but for one layer at a time.
    """
    with SkipInitialisation():
        network = PrimeDenoiser(shape).requires_grad_(False).eval().serve_in(dtype)
    chance = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            parameter.fill_(name.endswith("weight"))
        elif parameter.dtype == torch.float32:
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=chance)
        else:
            parameter.copy_(torch.empty(parameter.shape).normal_(std=parameter.shape[-1] ** -0.5, generator=chance))
    codes = SubTokenizer.from_base(shape.vocabulary_size, shape.sub_tokens_per_token, shape.base)
    return without_cache(BareModel(network, codes))


def without_cache(model: BareModel[PrimeDenoiser]) -> BareModel[PrimeDenoiser]:
    """The model with a network that caches no blank canvases: it does so only while its weights are frozen."""
    model.denoiser.embedding.requires_grad_(True)
    return model


def plan_of(model: Model, samples: int, seed: int) -> Plan:
    """A plan of exact samples on full, empty canvases."""
    fields = {"n": samples, "max_tokens": model.denoiser.length, "seed": seed}
    return make_plan(model, GenerationRequest.model_validate(fields))


def on_its_way(model: Model, plan: Plan, index: int, step: int) -> ActiveSample:
    """A sample `step` groups into its schedule, with random tokens revealed."""
    chance = torch.Generator().manual_seed(index * 1_000_003 + step)
    tokens = torch.randint(model.denoiser.vocabulary_size, (plan.length,), generator=chance)
    sub_tokens = [each for done in plan.schedules[index].steps[:step] for each in done.reveal]
    digits = initial_state(model, plan).flatten()
    digits[sub_tokens] = model.sub_tokenizer.encode(tokens).flatten()[sub_tokens]
    return ActiveSample(plan, index, digits.view(plan.length, -1), step=step)


def spread_out(model: Model, plan: Plan, shift: float) -> list[ActiveSample]:
    """The plan's samples, evenly spread over their schedules; `shift` in [0, 1) moves all of them forward."""
    samples, steps = len(plan.schedules), len(plan.schedules[0].steps)
    return [on_its_way(model, plan, i, int((i + shift) / samples * steps)) for i in range(samples)]


def half_revealed(model: Model) -> list[ActiveSample]:
    """Samples half-way through their schedule, of which the next token already shows 0, 1, … l - 1 digits."""
    digits = model.sub_tokenizer.sub_tokens_per_token
    found: dict[int, ActiveSample] = {}
    seed = 0
    while len(found) < digits:
        seed += 1
        plan = plan_of(model, 1, seed)
        sample = on_its_way(model, plan, 0, len(plan.schedules[0].steps) // 2)
        shown = sample.digits[sample.steps[sample.step].reveal[0] // digits] != model.sub_tokenizer.mask_id
        found.setdefault(int(shown.sum()), sample)
    return [found[count] for count in range(digits)]
