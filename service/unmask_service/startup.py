"""From a bundle's folder to a model that is ready: checked, tested on this machine, and its speed measured."""

import logging
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from unmask_diffusion import MAX_BUDGET, MAX_STEPS, MAX_TEMPERATURE, Model
from unmask_model_store import (
    WEIGHTS_FILE,
    Bundle,
    BundleError,
    BundleOutline,
    open_bundle,
    open_outline,
    read_facts,
    read_text_settings,
    resolve_device,
    resolve_dtype,
)

from unmask_service.api import MAX_CANDIDATES, MAX_DEADLINE_MS, Limits, ModelCard, ServedModel, Vocabulary
from unmask_service.engine import BrokenPromiseError, fingerprint, measured_capacity, self_test
from unmask_service.forecast import Capacity
from unmask_service.machine import available_memory, set_threads
from unmask_service.metrics import Metrics
from unmask_service.settings import Settings

logger = logging.getLogger("unmask")

# share of the memory that is free once the model is loaded; the rest is for plans, logs and other processes
DEFAULT_SHARE = 0.5


class MemoryBudgetError(ValueError):
    """Not even one canvas fits into the memory budget of an evaluation."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready."""

    model: Model  # for the engine
    served: ServedModel  # the same model for the API
    capacity: Capacity  # of an engine that runs it
    fingerprint: str  # the kind of machine and arithmetic


def describe(folder: Path, settings: Settings) -> ModelCard:
    """Read a bundle's configuration; raises BundleError where it is broken."""
    facts = asdict(read_facts(folder))
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
        id=facts["name"],
        created=int(time.time()),
        limits=limits,
        **{name: value for name, value in facts.items() if name in ModelCard.model_fields},
    )


def check_that_it_can_run(folder: Path, settings: Settings) -> None:
    """Check, before anything slow begins, that the weights are there and the device exists; raises BundleError."""
    resolve_dtype(settings.dtype, resolve_device(settings.device))
    try:
        (folder / WEIGHTS_FILE).open("rb").close()
    except OSError as error:
        raise BundleError(f"{folder / WEIGHTS_FILE}: cannot be read: {error.strerror}") from error


def load(folder: Path, settings: Settings, metrics: Metrics, models: int = 1) -> LoadedModel:
    """Open a bundle, test and measure it. Call it in the thread that will evaluate the model.

    `models` is the number of models of this process, which share its memory.

    Raises BundleError for a broken bundle, and MemoryBudgetError.
    """
    begun = time.perf_counter()
    bundle = open_bundle(folder, settings.dtype, settings.device)
    # workers have one fingerprint, which the number of threads is a part of: nothing is measured there
    set_threads(settings.threads, bundle, () if settings.redis_url else (1, 8))
    tokens_per_tick = tokens_that_fit(bundle, settings, models)
    kind = fingerprint(bundle.device, bundle.dtype)
    try:
        self_test(bundle, tokens_per_tick)
    except BrokenPromiseError as error:
        logger.warning("%s", error)  # served all the same: only reproducibility is at stake
        kind = "unreproducible"
    capacity = measured_capacity(bundle, tokens_per_tick)
    device = str(bundle.device) if isinstance(bundle.denoiser, torch.nn.Module) else "cpu"  # exact models stay there
    labels = {"architecture": bundle.config.architecture, "device": device}
    labels |= {"dtype": str(bundle.dtype).removeprefix("torch."), "fingerprint": kind}
    metrics.describe(build_facts(), labels)
    logger.info("%s is ready after %.2f s", bundle.name, time.perf_counter() - begun)
    return LoadedModel(bundle, served_model(bundle), capacity, kind)


def open_for_api(folder: Path) -> ServedModel:
    """What an API process needs of a bundle: everything but the weights. Raises BundleError."""
    return served_model(open_outline(folder))


def served_model(outline: BundleOutline) -> ServedModel:
    """A bundle as the API needs it."""
    texts = read_text_settings(outline)
    return ServedModel(outline.name, outline, Vocabulary(outline), outline.config.trained, texts)


def build_facts() -> dict[str, str]:
    """Versions of the software."""
    return {"version": version("unmask"), "torch": torch.__version__}


def tokens_that_fit(bundle: Bundle, settings: Settings, models: int = 1) -> int:
    """Most tokens of all canvases of an evaluation, by the settings and by an equal share of memory for each model.

    Raises MemoryBudgetError: not even one canvas fits.
    """
    budget = settings.memory_budget
    if budget is None:
        on_gpu = bundle.device.type == "cuda"
        budget = int(DEFAULT_SHARE * (torch.cuda.mem_get_info(bundle.device)[0] if on_gpu else available_memory()))
    budget //= models
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
