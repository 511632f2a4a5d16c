"""From a bundle's folder to a model that is ready: checked, tested on this machine, and its speed known."""

import logging
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from unmask_diffusion import MAX_BUDGET, Model
from unmask_diffusion.request import MAX_STEPS, MAX_TEMPERATURE
from unmask_model_store import (
    Bundle,
    BundleError,
    BundleOutline,
    open_bundle,
    open_outline,
    read_config,
    resolve_device,
    resolve_dtype,
)
from unmask_model_store.bundle import TOKENIZER_FILE, WEIGHTS_FILE

from unmask_service.api import Limits, ModelCard, ServedModel, Vocabulary
from unmask_service.api.schemas import MAX_CANDIDATES, MAX_DEADLINE_MS
from unmask_service.engine import BrokenPromiseError, fingerprint, measured_capacity, self_test
from unmask_service.forecast import Capacity
from unmask_service.memory import available_memory
from unmask_service.metrics import Metrics
from unmask_service.settings import Settings

logger = logging.getLogger("unmask")

# of the memory that is free once the model is loaded; the rest is for plans, logs, what else runs, and luck
DEFAULT_SHARE = 0.5


class MemoryBudgetError(ValueError):
    """Not even one canvas fits into the memory that an evaluation may take."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready.

    Attributes:
        model: for the engine.
        served: the same for the API.
        capacity: of an engine that runs it.
        fingerprint: the kind of machine and arithmetic that this is.
    """

    model: Model
    served: ServedModel
    capacity: Capacity
    fingerprint: str


def describe(folder: Path, settings: Settings) -> ModelCard:
    """Read what a bundle says of itself, cheaply.

    Raises:
        BundleError: the configuration is broken.
    """
    config = read_config(folder)
    limits = Limits(
        max_samples=settings.max_samples,
        max_steps=MAX_STEPS,
        max_temperature=MAX_TEMPERATURE,
        max_body_bytes=settings.max_body_bytes,
        max_requests=settings.max_requests,
        max_evaluations=settings.max_evaluations,
        max_deadline_ms=MAX_DEADLINE_MS,
        max_candidates=MAX_CANDIDATES,
        max_budget=MAX_BUDGET,
    )
    return ModelCard(
        id=config.name or folder.resolve().name,
        created=int(time.time()),
        architecture=config.architecture,
        length=config.length,
        vocabulary_size=config.vocabulary_size,
        sub_tokens_per_token=config.sub_tokens_per_token,
        base=config.base,
        canvas=config.canvas,
        tokenizer=(folder / TOKENIZER_FILE).exists(),
        end_token_id=config.end_token_id,
        limits=limits,
    )


def check_that_it_can_run(folder: Path, settings: Settings) -> None:
    """See, before anything slow begins, whether there is something to run here: for processes with an engine.

    Raises:
        BundleError: the weights are missing, or this machine cannot run them as asked.
    """
    resolve_dtype(settings.dtype, resolve_device(settings.device))
    try:
        (folder / WEIGHTS_FILE).open("rb").close()
    except OSError as error:
        raise BundleError(f"{folder / WEIGHTS_FILE}: cannot be read: {error.strerror}") from error


def load(folder: Path, settings: Settings, metrics: Metrics) -> LoadedModel:
    """Open a bundle, and see what this machine does with it. For the thread that will evaluate it.

    Raises:
        BundleError: it is broken.
        MemoryBudgetError: not even one canvas fits into the memory that an evaluation may take.
    """
    begun = time.perf_counter()
    bundle = open_bundle(folder, settings.dtype, settings.device)
    tokens_per_tick = tokens_that_fit(bundle, settings)
    kind = fingerprint(bundle)
    try:
        self_test(bundle, tokens_per_tick)
    except BrokenPromiseError as error:
        logger.warning("%s", error)  # served all the same: only reproducibility is at stake
        kind = "unreproducible"
    capacity = measured_capacity(bundle, tokens_per_tick)
    metrics.describe(build_facts(), _labels_of(bundle, kind))
    logger.info("%s is ready after %.2f s", bundle.name, time.perf_counter() - begun)
    return LoadedModel(bundle, served_model(bundle), capacity, kind)


def open_for_api(folder: Path) -> ServedModel:
    """What an API process needs of a bundle: everything but the weights.

    Raises:
        BundleError: it is broken.
    """
    return served_model(open_outline(folder))


def served_model(outline: BundleOutline) -> ServedModel:
    """A bundle as the API knows it."""
    return ServedModel(outline.name, outline, Vocabulary(outline))


def build_facts() -> dict[str, str]:
    """Which software this is."""
    return {"version": version("unmask"), "torch": torch.__version__}


def tokens_that_fit(bundle: Bundle, settings: Settings) -> int:
    """Tokens of all canvases that may share an evaluation: by the settings, and by the memory that it takes.

    Raises:
        MemoryBudgetError: not even one canvas fits.
    """
    budget = settings.memory_budget or default_memory_budget(bundle.device)
    longest, a_token = bundle.denoiser.length, bundle.denoiser.activation_bytes_per_token
    fit = budget // a_token
    if fit < longest:
        raise MemoryBudgetError(
            f"an evaluation of one canvas of {longest} tokens takes {longest * a_token} bytes; "
            f"the memory budget is {budget} bytes"
        )
    if fit < settings.tokens_per_tick:
        logger.warning("the memory budget of %d bytes allows %d tokens a tick", budget, fit)
    return min(settings.tokens_per_tick, fit)


def default_memory_budget(device: torch.device) -> int:
    """Half of what is free, in bytes: on the device, or in the container or machine that this process runs in."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    return int(DEFAULT_SHARE * free)


def _labels_of(bundle: Bundle, kind_of_machine: str) -> dict[str, str]:
    return {
        "model": bundle.name,
        "architecture": bundle.config.architecture,
        "device": str(bundle.device),
        "dtype": str(bundle.dtype).removeprefix("torch."),
        "fingerprint": kind_of_machine,
    }
