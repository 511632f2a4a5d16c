"""What there is to say about a model, written once: for `unmask info`, the card of an import, and `/v1/models`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.nn import Module
from unmask_diffusion import UNetDenoiser

from unmask_model_store.bundle import TOKENIZER_FILE, Bundle, name_of, read_config
from unmask_model_store.config import BundleConfig, LlamaConfig, PrimeConfig, UNetConfig

FLOAT_BYTES = 4


@dataclass(frozen=True)
class ModelFacts:
    """What a bundle's folder says without its weights."""

    name: str  # the model's name for the server
    root: str  # where its source is on the hub; the model's name where that is not known
    path: str
    architecture: str
    length: int  # the longest canvas L, in tokens
    vocabulary_size: int  # classes C
    sub_tokens_per_token: int  # digits per token, l
    base: int  # b
    parameterization: str | None  # of the network's head; None: an exact model
    carry_over: bool  # whether the model was trained with the carry-over filter
    canvas: Literal["as_requested", "full"]  # full: the network always sees its whole length
    tokenizer: bool  # whether there is one; else token ids only
    clock: int  # the `sampler.clock` of requests that have none
    image: dict[str, Any] | None  # the bundle's block of that name: size, channels and palette of its pictures
    codes: list[int] | None  # of an image model whose codes are not the token ids: the code of each, a number in base b
    end_token_id: int | None  # the first of these
    end_token_ids: list[int]  # tokens that end a text
    switches: str | None  # what tells a network from others of its architecture, in words
    description: str | None  # what the model is, in a sentence
    examples: list[str]  # prompts that show what it can do
    generation: dict[str, Any] | None  # fields of a request that its author recommends

    @staticmethod
    def of(folder: Path, config: BundleConfig, tokenizer: bool) -> "ModelFacts":
        """The facts of a bundle in this folder."""
        keys = config.model_dump(include={field.name for field in fields(ModelFacts)})
        name = name_of(folder, config)
        keys |= {"name": name, "root": str(config.provenance.get("repository", name)), "path": str(folder)}
        keys |= {"tokenizer": tokenizer, "clock": config.clock}
        keys |= {"image": None if config.image is None else config.image.model_dump(exclude_none=True)}
        natural = config.image is None or config.codes == [*range(config.vocabulary_size)]
        keys |= {"codes": None if natural else config.codes}
        ends = [*config.end_token_ids]
        keys |= {"end_token_id": ends[0] if ends else None, "end_token_ids": ends}
        keys["switches"] = config.switches if isinstance(config, LlamaConfig | UNetConfig) else None
        return ModelFacts(**{"parameterization": None, "examples": []} | keys)


@dataclass(frozen=True)
class OpenModelFacts(ModelFacts):
    """The facts of an open model: also its memory, and what a full canvas costs."""

    parameters: int
    device: str
    dtype: str  # of the tensors in memory
    bytes_on_disk: int
    bytes_in_memory: int
    evaluations: int  # network evaluations of a full canvas by the exact first-hitting sampler
    logit_bytes_an_evaluation: int  # float32 logits that one of these evaluations draws from
    flops_an_evaluation: int | None  # floating-point operations; None: not counted for this architecture
    logit_bytes_at_once: int  # float32 logits if all tokens are revealed in one evaluation


def read_facts(folder: Path) -> ModelFacts:
    """Read the facts of a bundle's folder without opening the model; raise `BundleError` if it is broken."""
    return ModelFacts.of(folder, read_config(folder), (folder / TOKENIZER_FILE).exists())


def open_facts(bundle: Bundle) -> OpenModelFacts:
    """The facts of an open bundle."""
    facts = ModelFacts.of(bundle.path, bundle.config, bundle.tokenizer is not None)
    # the parameters of a network, or the tables of an exact model
    denoiser = bundle.denoiser
    values = denoiser.parameters() if isinstance(denoiser, Module) else vars(denoiser).values()
    tensors = [tensor for tensor in values if isinstance(tensor, Tensor)]
    row = FLOAT_BYTES * facts.vocabulary_size
    return OpenModelFacts(
        **vars(facts),
        parameters=sum(tensor.numel() for tensor in tensors),
        device=str(bundle.device),
        dtype=", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})),
        bytes_on_disk=sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file()),
        bytes_in_memory=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        evaluations=facts.length * facts.sub_tokens_per_token,
        logit_bytes_an_evaluation=row,
        flops_an_evaluation=denoiser.shape.flops if isinstance(denoiser, UNetDenoiser) else None,
        logit_bytes_at_once=row * facts.length,
    )


# keys of the provenance in the card, and how they are called there
_LABELS = {
    "repository": "repository",
    "revision": "revision",
    "file": "file",
    "sha256": "SHA-256",
    "format": "format",
    "weights": "weights",
    "dataset": "dataset",
    "epoch": "epoch",
    "global_step": "step",
    "ema_decay": "EMA decay",
    "ema_updates": "EMA updates",
    "lightning_version": "Lightning",
}


def import_card(facts: ModelFacts, config: BundleConfig) -> str:
    """The README.md of an imported bundle: what the model is and where it came from."""
    origin = config.provenance
    kind = origin.get("family") or ("MDLM" if facts.sub_tokens_per_token == 1 else "MDM-Prime")
    lines = [
        f"# {facts.name}",
        "",
        f"Model of {kind}{', of images' if isinstance(config, UNetConfig) else ''}, imported by `unmask import`.",
        "",
        f"- {facts.vocabulary_size:,} classes, {facts.length:,} tokens",
        f"- sub-tokens per token: l = {facts.sub_tokens_per_token}, in base {facts.base}",
        *_network_lines(config),
        f"- trained {'with' if facts.carry_over else 'without'} carry-over; the sampler always respects it",
        f"- canvas: {facts.canvas}",
        "",
        "## Where it came from",
        "",
        *(f"- {label}: `{origin[key]}`" for key, label in _LABELS.items() if key in origin),
    ]
    if ignored := origin.get("ignored"):
        names = ", ".join(f"`{name}`" for name in ignored)
        lines.append(f"- named by the file's pickle, recorded and never executed: {names}")
    return "\n".join([*lines, ""])


def _network_lines(config: BundleConfig) -> list[str]:
    if isinstance(config, PrimeConfig):
        return [
            f"- hidden size {config.hidden_size}, {config.blocks} blocks, {config.heads} heads",
            "- time-agnostic: the constant modulations are folded into the weights",
        ]
    if isinstance(config, UNetConfig):
        return [f"- {config.switches}", "- time-agnostic: the constant scales and shifts are folded into the norms"]
    return []
