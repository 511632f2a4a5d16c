"""MDM-Prime's and MDLM's own checkpoints: Lightning's dictionary, an OmegaConf configuration, nameless EMA weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from unmask_diffusion import NetworkShape

from unmask_model_store.importers.archive import TorchArchive
from unmask_model_store.importers.errors import ImportFailure, printable
from unmask_model_store.importers.official import (
    EMBEDDING,
    PREFIX,
    ROTARY,
    Source,
    check_rotary,
    network_shape,
)
from unmask_model_store.importers.omega import Literals, entries
from unmask_model_store.importers.records import TensorRecord
from unmask_model_store.importers.unpickle import read_pickle
from unmask_model_store.weights import LazyTensor

Weights = Literal["ema", "raw"]


@contextmanager
def open_lightning(file: Path, weights: Weights) -> Iterator[Source]:
    """Open a checkpoint; its weights can be read as long as it is open.

    Raises:
        ImportFailure: it is no checkpoint, or one of another kind of model.
    """
    with TorchArchive(file) as archive:
        content, ignored = read_pickle(archive.pickle())
        checkpoint = _checkpoint(content)
        state = _state(checkpoint)
        config = _config(checkpoint)
        chosen = _ema(checkpoint, state) if weights == "ema" else _parameters(state)
        network = {name.removeprefix(PREFIX): t for name, t in chosen.items() if name.startswith(PREFIX)}
        if PREFIX + ROTARY in state:
            check_rotary(archive.read_tensor(state[PREFIX + ROTARY]))
        lazy = {name: _lazy(archive, tensor) for name, tensor in network.items()}
        mask_is_a_class = not config.has("prime") or config.integer("prime.target_length") == 1
        yield Source(
            _mdlm_shape(config, network) if mask_is_a_class else _prime_shape(config),
            config.integer("model.cond_dim"),
            mask_is_a_class,
            not config.has("prime") or config.boolean("prime.carry_over"),
            lazy,
            _facts(checkpoint, weights),
            ignored,
        )


def _lazy(archive: TorchArchive, tensor: TensorRecord) -> LazyTensor:
    return LazyTensor(tensor.shape, tensor.storage.dtype, lambda: _read(archive, tensor))


def _read(archive: TorchArchive, tensor: TensorRecord) -> Tensor:
    return archive.read_tensor(tensor)


def _checkpoint(content: object) -> Mapping[Any, Any]:
    checkpoint = entries(content)
    if checkpoint is None:
        raise ImportFailure("is not a Lightning checkpoint: its pickle holds no dictionary")
    if "state_dict" not in checkpoint:
        if "model" in checkpoint and "args" in checkpoint:
            raise ImportFailure("is a checkpoint of MDM-Prime's image models; only text models are served")
        keys = ", ".join(printable(key, 30) for key in list(checkpoint)[:8] if isinstance(key, str)) or "none"
        raise ImportFailure(f"is not a Lightning checkpoint: it has no state_dict (keys: {keys})")
    return checkpoint


def _state(checkpoint: Mapping[Any, Any]) -> dict[str, TensorRecord]:
    """The tensors of `state_dict`, in their order."""
    found = entries(checkpoint["state_dict"]) or {}
    state = {name: tensor for name, tensor in found.items() if isinstance(name, str)}
    if PREFIX + EMBEDDING not in state:
        raise ImportFailure(f"is not an MDM-Prime or MDLM text model: its state_dict has no {PREFIX}{EMBEDDING}")
    for name, tensor in state.items():
        if not isinstance(tensor, TensorRecord):
            raise ImportFailure(f"its state_dict's {printable(name)} is not a plain tensor")
    return state


def _parameters(state: Mapping[str, TensorRecord]) -> dict[str, TensorRecord]:
    """The network's and the noise schedule's parameters, in their order: what the EMA follows."""
    return {
        name: tensor
        for name, tensor in state.items()
        if name.startswith((PREFIX, "noise.")) and name != PREFIX + ROTARY
    }


def _ema(checkpoint: Mapping[Any, Any], state: Mapping[str, TensorRecord]) -> dict[str, TensorRecord]:
    """Give the EMA's nameless weights the parameters' names, by their order."""
    ema = entries(checkpoint.get("ema")) or {}
    shadows = ema.get("shadow_params")
    if not isinstance(shadows, list | tuple) or not shadows:
        raise ImportFailure("has no EMA weights (ema.shadow_params); --weights raw takes the others")
    parameters = _parameters(state)
    if len(shadows) != len(parameters):
        raise ImportFailure(f"its EMA has {len(shadows)} weights; its state_dict has {len(parameters)} parameters")
    for i, ((name, parameter), shadow) in enumerate(zip(parameters.items(), shadows, strict=True)):
        if not isinstance(shadow, TensorRecord):
            raise ImportFailure(f"its ema.shadow_params[{i}] is not a plain tensor")
        if shadow.shape != parameter.shape:
            raise ImportFailure(
                f"its ema.shadow_params[{i}] has the shape {printable(list(shadow.shape), 60)}; parameter "
                f"{printable(name)} has {printable(list(parameter.shape), 60)}"
            )
    return dict(zip(parameters, shadows, strict=True))


def _config(checkpoint: Mapping[Any, Any]) -> Literals:
    hyper_parameters = entries(checkpoint.get("hyper_parameters"))
    if hyper_parameters is None or "config" not in hyper_parameters:
        raise ImportFailure("has no configuration (hyper_parameters.config)")
    config = Literals(hyper_parameters["config"])
    for key, needed in (("backbone", "dit"), ("parameterization", "subs")):
        if (found := config.string(key)) != needed:
            raise ImportFailure(f"its {key} is {printable(found, 40)!r}; only {needed!r} is served")
    if config.boolean("time_conditioning"):
        raise ImportFailure("is time-conditioned; only time-agnostic models (time_conditioning false) are served")
    return config


def _sizes(config: Literals) -> dict[str, int]:
    return {
        "length": config.integer("model.length"),
        "hidden_size": config.integer("model.hidden_size"),
        "blocks": config.integer("model.n_blocks"),
        "heads": config.integer("model.n_heads"),
    }


def _prime_shape(config: Literals) -> NetworkShape:
    """MDM-Prime: every size is a literal. The base is never recomputed: the official formula errs at perfect powers."""
    sizes = _sizes(config)
    if (length := config.integer("prime.seq_length")) != sizes["length"]:
        raise ImportFailure(f"its prime.seq_length is {length}, its model.length {sizes['length']}")
    return network_shape(
        **sizes,
        classes=config.integer("prime.vocab_size", least=2),
        sub_tokens=config.integer("prime.target_length"),
        base=config.integer("prime.base", least=2),
    )


def _mdlm_shape(config: Literals, network: Mapping[str, TensorRecord]) -> NetworkShape:
    """MDLM: one class more than tokens, the mask, the last. MDM-Prime's configuration says how many tokens."""
    rows = network[EMBEDDING].shape[0] if network[EMBEDDING].shape else 0
    classes = config.integer("prime.vocab_size", least=2) if config.has("prime.vocab_size") else rows - 1
    if not config.has("prime") and config.string("data.tokenizer_name_or_path") != "gpt2":
        raise ImportFailure(
            "its tokenizer may have a mask of its own; of MDLM's checkpoints only those with gpt2's are read"
        )
    if rows == classes:
        raise ImportFailure(f"its mask is one of its tokenizer's {classes} tokens; only a mask of its own is served")
    return network_shape(**_sizes(config), classes=max(classes, 2), sub_tokens=1, base=max(classes, 2))


def _facts(checkpoint: Mapping[Any, Any], weights: Weights) -> dict[str, Any]:
    ema = entries(checkpoint.get("ema")) or {}
    found: dict[str, Any] = {
        "epoch": checkpoint.get("epoch"),
        "global_step": checkpoint.get("global_step"),
        "lightning_version": checkpoint.get("pytorch-lightning_version"),
        "ema_decay": ema.get("decay") if weights == "ema" else None,
        "ema_updates": ema.get("num_updates") if weights == "ema" else None,
    }
    numbers = {k: v for k, v in found.items() if type(v) in (int, float) and abs(v) < 2**63}
    strings = {k: printable(v) for k, v in found.items() if isinstance(v, str)}
    return {"format": "lightning", "weights": weights, **numbers, **strings}
