"""The official checkpoints of MDM-Prime and MDLM: where the network's sizes and weights are in them.

The network is the same in Lightning's checkpoints (`.ckpt`, of both projects) and in Hugging Face's layout
(`kuleshov-group/mdlm-owt`), down to the names (`models/dit.py` of both repositories): a DiT with adaLN whose condition
is the embedding of the noise level. `fold.py` makes the weights of our network of it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from unmask_diffusion import NetworkShape
from unmask_diffusion.networks import ROTARY_BASE

from unmask_model_store.bundle import CONFIG_FILE, SHARDS_FILE, WEIGHTS_FILE, is_sharded
from unmask_model_store.config import printable
from unmask_model_store.importers.hugging_face import FAMILIES
from unmask_model_store.importers.source import Weights
from unmask_model_store.importers.torch_file import TensorRecord, TorchFile
from unmask_model_store.importers.untrusted import ImportFailure, Literals, entries, naming
from unmask_model_store.weights import LazyTensor, find_fault

PREFIX = "backbone."
EMBEDDING = "vocab_embed.embedding"
HEAD = "output_layer.linear"
ROTARY = "rotary_emb.inv_freq"  # a buffer among the parameters

# longer than anything a transformer with full attention is trained on: the file's tensors do not bound the length
LONGEST = 2**20


@dataclass(frozen=True)
class Network:
    """An official network in a file, with its weights unread but their shapes checked."""

    file: Path  # the file with the weights
    shape: NetworkShape  # the mask is not counted as a class
    condition_size: int  # width of the noise level's embedding, `cond_dim`
    mask_is_a_class: bool  # MDLM's head has one more column, for the mask, which is never drawn
    carry_over: bool  # whether the network was trained with the carry-over filter
    weights: Mapping[str, LazyTensor]  # by their official names without `backbone.`
    provenance: Mapping[str, Any]  # for the card
    ignored: tuple[str, ...] = ()  # names in the file's pickle that were not expected, and not executed

    def __post_init__(self) -> None:
        _check_shapes(self)

    def read(self, name: str) -> Tensor:
        """Read a tensor; raise `ImportFailure` if it holds NaN or an infinity."""
        tensor = self.weights[name].read()
        if not bool(tensor.isfinite().all()):
            kind = "NaN" if bool(tensor.isnan().any()) else "an infinity"
            raise ImportFailure(f"tensor {PREFIX}{name} holds {kind}")
        return tensor


# --- Lightning's checkpoints: a dictionary, an OmegaConf configuration, EMA weights without names ---------------------


def read_lightning(opened: TorchFile, file: Path, weights: Weights) -> Network:
    """Read a Lightning checkpoint; raise `ImportFailure` if it is not one of these models."""
    checkpoint = _checkpoint(opened.content)
    state = _state(checkpoint)
    config = _lightning_config(checkpoint)
    chosen = _ema(checkpoint, state) if weights == "ema" else _parameters(state)
    network = {name.removeprefix(PREFIX): t for name, t in chosen.items() if name.startswith(PREFIX)}
    if PREFIX + ROTARY in state:
        _check_rotary(opened.read_tensor(state[PREFIX + ROTARY]))
    mask_is_a_class = not config.has("prime") or config.integer("prime.target_length") == 1
    return Network(
        file,
        _mdlm_shape(config, network) if mask_is_a_class else _prime_shape(config),
        config.integer("model.cond_dim"),
        mask_is_a_class,
        not config.has("prime") or config.boolean("prime.carry_over"),
        {n: LazyTensor(t.shape, t.storage.dtype, partial(opened.read_tensor, t)) for n, t in network.items()},
        _lightning_provenance(checkpoint, weights),
        opened.ignored,
    )


def _checkpoint(content: object) -> Mapping[Any, Any]:
    checkpoint = entries(content)
    if checkpoint is None:
        raise ImportFailure("is not a Lightning checkpoint: its pickle holds no dictionary")
    if "state_dict" not in checkpoint:
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
    """The parameters of the network and of the noise schedule, in their order: what the EMA follows."""
    named = {name: tensor for name, tensor in state.items() if name.startswith((PREFIX, "noise."))}
    named.pop(PREFIX + ROTARY, None)
    return named


def _ema(checkpoint: Mapping[Any, Any], state: Mapping[str, TensorRecord]) -> dict[str, TensorRecord]:
    """Give the EMA's nameless weights the parameters' names, by their order."""
    shadows = (entries(checkpoint.get("ema")) or {}).get("shadow_params")
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


def _lightning_config(checkpoint: Mapping[Any, Any]) -> Literals:
    hyper_parameters = entries(checkpoint.get("hyper_parameters"))
    if hyper_parameters is None or "config" not in hyper_parameters:
        raise ImportFailure("has no configuration (hyper_parameters.config)")
    config = Literals(hyper_parameters["config"])
    for key, needed in (("backbone", "dit"), ("parameterization", "subs")):
        if (found := config.string(key)) != needed:
            raise ImportFailure(f"its {key} is {printable(found, 40)!r}; only {needed!r} is served")
    _check_time(config)
    return config


def _prime_shape(config: Literals) -> NetworkShape:
    """MDM-Prime: every size is a literal. The base is never recomputed: the official formula errs at perfect powers."""
    length = config.integer("model.length")
    if (sequence := config.integer("prime.seq_length")) != length:
        raise ImportFailure(f"its prime.seq_length is {sequence}, its model.length {length}")
    classes = config.integer("prime.vocab_size", least=2)
    return _shape(
        config, length, classes, config.integer("prime.target_length"), config.integer("prime.base", least=2), "model."
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
    classes = max(classes, 2)
    return _shape(config, config.integer("model.length"), classes, 1, classes, "model.")


def _lightning_provenance(checkpoint: Mapping[Any, Any], weights: Weights) -> dict[str, Any]:
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


# --- Hugging Face's layout: config.json and model.safetensors ---------------------------------------------------------


@contextmanager
def open_hugging_face(folder: Path, weights: Weights) -> Iterator[Network]:
    """Open an MDLM's folder in Hugging Face's layout."""
    if weights == "raw":
        raise ImportFailure("Hugging Face's layout has one set of weights, the EMA's; --weights raw cannot be chosen")
    if is_sharded(folder):
        raise ImportFailure(f"is sharded: {SHARDS_FILE} names several files; only a single {WEIGHTS_FILE} is read")
    file = folder / WEIGHTS_FILE
    with naming(folder / CONFIG_FILE):
        config = _hugging_face_config(folder / CONFIG_FILE)
        classes = config.integer("vocab_size", least=3) - 1  # the last is the mask
        shape = _shape(config, config.integer("model_length"), classes, 1, classes)
        condition = config.integer("cond_dim")
    with naming(file), _open_safetensors(file) as opened:
        names = list(opened.keys())
        if PREFIX + ROTARY in names:
            names.remove(PREFIX + ROTARY)
            _check_rotary(opened.get_tensor(PREFIX + ROTARY))
        tensors = {name.removeprefix(PREFIX): _lazy(opened, name) for name in names}
        yield Network(file, shape, condition, True, True, tensors, {"format": "huggingface"})


def _open_safetensors(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise ImportFailure(f"is not a safetensors file: {printable(error)}") from error


def _lazy(file: safe_open, name: str) -> LazyTensor:
    tensor: Tensor = file.get_tensor(name)  # type: ignore[no-untyped-call]  # a view of the mapped file, not yet read
    return LazyTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def _hugging_face_config(file: Path) -> Literals:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ImportFailure("is not valid JSON") from error
    config = Literals(content)
    if (kind := config.string("model_type")) != "mdlm":
        served = ", ".join(FAMILIES)
        raise ImportFailure(f"its model_type is {printable(kind, 40)!r}; only mdlm, {served} are served")
    _check_time(config)
    return config


# --- what both hold ---------------------------------------------------------------------------------------------------


def _check_time(config: Literals) -> None:
    if config.boolean("time_conditioning"):
        raise ImportFailure("is time-conditioned; only time-agnostic models (time_conditioning false) are served")


def _shape(config: Literals, length: int, classes: int, sub_tokens: int, base: int, prefix: str = "") -> NetworkShape:
    if length > LONGEST:
        raise ImportFailure(f"its length is {length} tokens; at most {LONGEST} are imported")
    hidden = config.integer(f"{prefix}hidden_size" if prefix else "hidden_dim")
    blocks, heads = config.integer(f"{prefix}n_blocks"), config.integer(f"{prefix}n_heads")
    try:
        return NetworkShape(length, classes, sub_tokens, base, hidden, blocks, heads)
    except ValueError as error:
        raise ImportFailure(f"its sizes do not fit each other: {error}") from error


def _check_rotary(frequencies: Tensor) -> None:
    """Compare the rotary buffer with the frequencies that our network computes itself."""
    half = frequencies.numel()
    expected = ROTARY_BASE ** -(torch.arange(half).double() / half)
    if frequencies.ndim != 1 or not torch.allclose(frequencies.double(), expected, rtol=1e-2, atol=0):
        raise ImportFailure(f"{PREFIX}{ROTARY} is not that of rotary embeddings with base {ROTARY_BASE:.0f}")


def _check_shapes(network: Network) -> None:
    if network.shape.blocks > len(network.weights):
        raise ImportFailure(
            f"its configuration asks for {network.shape.blocks} blocks; it has only {len(network.weights)} tensors"
        )
    expected = {PREFIX + name: shape for name, shape in _expected_shapes(network).items()}
    if fault := find_fault({PREFIX + name: tensor for name, tensor in network.weights.items()}, expected):
        raise ImportFailure(fault)


def _expected_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    shape, condition = network.shape, network.condition_size
    hidden, columns = shape.hidden_size, shape.vocabulary_size + network.mask_is_a_class
    # the number of frequencies is no key of the configuration: it is read off the tensor
    first = network.weights.get("sigma_map.mlp.0.weight")
    frequencies = first.shape[1] if first is not None and len(first.shape) == 2 else 256
    expected: dict[str, tuple[int, ...]] = {
        EMBEDDING: (shape.base + 1, hidden // shape.sub_tokens_per_token),
        "sigma_map.mlp.0.weight": (condition, frequencies),
        "sigma_map.mlp.0.bias": (condition,),
        "sigma_map.mlp.2.weight": (condition, condition),
        "sigma_map.mlp.2.bias": (condition,),
        "output_layer.norm_final.weight": (hidden,),
        f"{HEAD}.weight": (columns, hidden),
        f"{HEAD}.bias": (columns,),
        "output_layer.adaLN_modulation.weight": (2 * hidden, condition),
        "output_layer.adaLN_modulation.bias": (2 * hidden,),
    }
    block = {
        "norm1.weight": (hidden,),
        "attn_qkv.weight": (3 * hidden, hidden),
        "attn_out.weight": (hidden, hidden),
        "norm2.weight": (hidden,),
        "mlp.0.weight": (4 * hidden, hidden),
        "mlp.0.bias": (4 * hidden,),
        "mlp.2.weight": (hidden, 4 * hidden),
        "mlp.2.bias": (hidden,),
        "adaLN_modulation.weight": (6 * hidden, condition),
        "adaLN_modulation.bias": (6 * hidden,),
    }
    return expected | {f"blocks.{i}.{name}": size for i in range(shape.blocks) for name, size in block.items()}
