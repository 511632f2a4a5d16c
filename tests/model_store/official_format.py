"""Checkpoints in MDM-Prime's own format with random weights, of any size: for measurements, and for tests.

Neither Lightning nor OmegaConf is needed: classes with the names that belong into the pickle are made up meanwhile.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from unmask_diffusion import smallest_base

FREQUENCIES = 256


@dataclass(frozen=True)
class Sizes:
    """What an official configuration says. l = 1 is MDLM, whose mask is one class more."""

    classes: int
    sub_tokens: int
    length: int
    hidden: int
    blocks: int
    heads: int
    condition: int
    carry_over: bool = True
    base: int | None = None

    @property
    def radix(self) -> int:
        """The base b: the smallest that is enough, unless another is given."""
        return self.base or smallest_base(self.classes, self.sub_tokens)


OFFICIAL = Sizes(classes=50257, sub_tokens=4, length=1024, hidden=768, blocks=12, heads=12, condition=128)


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters, in the order of `parameters()`."""
    hidden, condition = sizes.hidden, sizes.condition
    columns = sizes.classes + (sizes.sub_tokens == 1)
    found: dict[str, tuple[int, ...]] = {
        "vocab_embed.embedding": (sizes.radix + 1, hidden // sizes.sub_tokens),
        "sigma_map.mlp.0.weight": (condition, FREQUENCIES),
        "sigma_map.mlp.0.bias": (condition,),
        "sigma_map.mlp.2.weight": (condition, condition),
        "sigma_map.mlp.2.bias": (condition,),
    }
    for i in range(sizes.blocks):
        found |= {
            f"blocks.{i}.norm1.weight": (hidden,),
            f"blocks.{i}.attn_qkv.weight": (3 * hidden, hidden),
            f"blocks.{i}.attn_out.weight": (hidden, hidden),
            f"blocks.{i}.norm2.weight": (hidden,),
            f"blocks.{i}.mlp.0.weight": (4 * hidden, hidden),
            f"blocks.{i}.mlp.0.bias": (4 * hidden,),
            f"blocks.{i}.mlp.2.weight": (hidden, 4 * hidden),
            f"blocks.{i}.mlp.2.bias": (hidden,),
            f"blocks.{i}.adaLN_modulation.weight": (6 * hidden, condition),
            f"blocks.{i}.adaLN_modulation.bias": (6 * hidden,),
        }
    return found | {
        "output_layer.norm_final.weight": (hidden,),
        "output_layer.linear.weight": (columns, hidden),
        "output_layer.linear.bias": (columns,),
        "output_layer.adaLN_modulation.weight": (2 * hidden, condition),
        "output_layer.adaLN_modulation.bias": (2 * hidden,),
    }


def random_weights(sizes: Sizes, seed: int) -> dict[str, Tensor]:
    """Weights under which no part of the network is idle: modulations and biases are far from zero."""
    generator = torch.Generator().manual_seed(seed)

    def one(name: str, shape: tuple[int, ...]) -> Tensor:
        scale = 0.3 if len(shape) == 1 else shape[-1] ** -0.5
        centre = 1.0 if "norm" in name else 0.0
        return torch.empty(shape).normal_(centre, scale, generator=generator)

    return {name: one(name, shape) for name, shape in shapes(sizes).items()}


def checkpoint(sizes: Sizes, seed: int = 0, optimizer: bool = False) -> dict[str, Any]:
    """What Lightning would save: raw weights of one seed, EMA weights of the next."""
    raw, ema = random_weights(sizes, seed), random_weights(sizes, seed + 1)
    half = sizes.hidden // sizes.heads // 2
    state = OrderedDict((f"backbone.{name}", tensor) for name, tensor in raw.items())
    state["backbone.rotary_emb.inv_freq"] = 10000.0 ** -(torch.arange(half) / half)
    for name in list(state)[5:-1]:  # the buffer lies in the middle: after the embeddings
        state.move_to_end(name)
    adam = {i: {"step": torch.tensor(1.0)} for i in range(len(raw))} if optimizer else {}
    for i, tensor in enumerate(raw.values() if optimizer else ()):
        adam[i] |= {"exp_avg": torch.zeros_like(tensor), "exp_avg_sq": torch.zeros_like(tensor)}
    return {
        "epoch": 3,
        "global_step": 1000,
        "pytorch-lightning_version": "2.2.1",
        "state_dict": state,
        "loops": {},
        "optimizer_states": [{"state": adam, "param_groups": []}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"config": configuration(sizes), "tokenizer": None},
        "ema": {"decay": 0.9999, "num_updates": 1000, "shadow_params": list(ema.values())},
        "sampler": {"random_state": None},
    }


def configuration(sizes: Sizes) -> dict[str, Any]:
    """The part of the official configuration that describes the network, and an interpolation that runs Python."""
    return {
        "backbone": "dit",
        "parameterization": "subs",
        "time_conditioning": False,
        "data": {"tokenizer_name_or_path": "gpt2"},
        "loader": {"num_workers": "${eval:\"len(__import__('os').sched_getaffinity(0))\"}"},
        "model": {
            "hidden_size": sizes.hidden,
            "cond_dim": sizes.condition,
            "length": sizes.length,
            "n_blocks": sizes.blocks,
            "n_heads": sizes.heads,
        },
        "prime": {
            "target_length": sizes.sub_tokens,
            "base": sizes.radix,
            "vocab_size": sizes.classes,
            "seq_length": sizes.length,
            "carry_over": sizes.carry_over,
        },
    }


def save(content: dict[str, Any], file: Path) -> None:
    """Write a checkpoint; a configuration that is a plain dict is pickled as OmegaConf would."""
    container, leaf = _named("omegaconf.dictconfig", "DictConfig"), _named("omegaconf.nodes", "AnyNode")

    def node(value: object) -> object:
        if isinstance(value, dict):
            made = container()
            made.__dict__ = {"_metadata": None, "_parent": None, "_content": {k: node(v) for k, v in value.items()}}
            return made
        made = leaf()
        made.__dict__ = {"_metadata": None, "_parent": None, "_val": value}
        return made

    hyper_parameters = content.get("hyper_parameters")
    if isinstance(hyper_parameters, dict) and isinstance(hyper_parameters.get("config"), dict):
        content = content | {"hyper_parameters": hyper_parameters | {"config": node(hyper_parameters["config"])}}
    with _importable(container, leaf):
        torch.save(content, file)


def _named(module: str, name: str) -> type:
    return type(name, (), {"__module__": module})


@contextmanager
def _importable(*classes: type) -> Iterator[None]:
    """Let pickle find classes where their names say."""
    before = dict(sys.modules)
    try:
        for each in classes:
            for depth in range(1, each.__module__.count(".") + 2):
                name = ".".join(each.__module__.split(".")[:depth])
                sys.modules[name] = ModuleType(name)
        for each in classes:
            setattr(sys.modules[each.__module__], each.__name__, each)
        yield
    finally:
        sys.modules.clear()
        sys.modules.update(before)
