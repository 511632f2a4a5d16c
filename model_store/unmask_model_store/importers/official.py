"""What the official networks consist of, whatever file they came in.

The network is the same in MDM-Prime's Lightning checkpoints and MDLM's Hugging Face folders, down to the names
(`models/dit.py` of both repositories): a DiT with adaLN whose condition is the embedding of the noise level.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from unmask_diffusion import NetworkShape
from unmask_diffusion.networks import ROTARY_BASE

from unmask_model_store.importers.errors import ImportFailure, printable
from unmask_model_store.weights import LazyTensor

PREFIX = "backbone."
EMBEDDING = "vocab_embed.embedding"
HEAD = "output_layer.linear"
ROTARY = "rotary_emb.inv_freq"  # a buffer among the parameters

# longer than anything a transformer with full attention is trained on: the file's tensors do not bound the length
LONGEST = 2**20


@dataclass(frozen=True)
class Source:
    """An official network that was found in a file, not yet read.

    Attributes:
        shape: its sizes, the mask not counted as a class.
        condition_size: width of the noise level's embedding, `cond_dim`.
        mask_is_a_class: MDLM's head has one more column, the mask's, which is never drawn.
        carry_over: whether it was trained with the carry-over filter.
        weights: tensors by their official names without `backbone.`, checked against the sizes.
        facts: where they came from, for the card.
        ignored: globals of the file's pickle that were recorded and not executed.
    """

    shape: NetworkShape
    condition_size: int
    mask_is_a_class: bool
    carry_over: bool
    weights: Mapping[str, LazyTensor]
    facts: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_shapes(self)

    def read(self, name: str) -> Tensor:
        """Read a tensor.

        Raises:
            ImportFailure: it holds NaN or an infinity.
        """
        tensor = self.weights[name].read()
        if not bool(tensor.isfinite().all()):
            kind = "NaN" if bool(tensor.isnan().any()) else "an infinity"
            raise ImportFailure(f"tensor {PREFIX}{name} holds {kind}")
        return tensor


def network_shape(
    *, length: int, classes: int, sub_tokens: int, base: int, hidden_size: int, blocks: int, heads: int
) -> NetworkShape:
    """The sizes, as one thing.

    Raises:
        ImportFailure: they do not fit each other.
    """
    if length > LONGEST:
        raise ImportFailure(f"its length is {length} tokens; {LONGEST} is the most that is imported")
    try:
        return NetworkShape(length, classes, sub_tokens, base, hidden_size, blocks, heads)
    except ValueError as error:
        raise ImportFailure(f"its sizes do not fit each other: {error}") from error


def check_rotary(frequencies: Tensor) -> None:
    """Hold the rotary buffer to the frequencies that our network computes itself.

    Raises:
        ImportFailure: the network was trained with others.
    """
    half = frequencies.numel()
    expected = ROTARY_BASE ** -(torch.arange(half).double() / half)
    if frequencies.ndim != 1 or not torch.allclose(frequencies.double(), expected, rtol=1e-2, atol=0):
        raise ImportFailure(f"{PREFIX}{ROTARY} is not that of rotary embeddings with base {ROTARY_BASE:.0f}")


def _expected_shapes(source: Source) -> dict[str, tuple[int, ...]]:
    shape, condition = source.shape, source.condition_size
    hidden = shape.hidden_size
    columns = shape.vocabulary_size + source.mask_is_a_class
    frequencies = _second_size(source.weights.get("sigma_map.mlp.0.weight"))
    expected: dict[str, tuple[int, ...]] = {
        EMBEDDING: (shape.base + 1, hidden // shape.sub_tokens_per_token),
        "sigma_map.mlp.0.weight": (condition, frequencies),
        "sigma_map.mlp.0.bias": (condition,),
        "sigma_map.mlp.2.weight": (condition, condition),
        "sigma_map.mlp.2.bias": (condition,),
    }
    for i in range(shape.blocks):
        expected |= {f"blocks.{i}.{name}": size for name, size in _block_shapes(hidden, condition).items()}
    return expected | {
        "output_layer.norm_final.weight": (hidden,),
        f"{HEAD}.weight": (columns, hidden),
        f"{HEAD}.bias": (columns,),
        "output_layer.adaLN_modulation.weight": (2 * hidden, condition),
        "output_layer.adaLN_modulation.bias": (2 * hidden,),
    }


def _second_size(tensor: LazyTensor | None) -> int:
    """The number of frequencies is no key of the configuration: it is read off the tensor."""
    return tensor.shape[1] if tensor is not None and len(tensor.shape) == 2 else 256


def _block_shapes(hidden: int, condition: int) -> dict[str, tuple[int, ...]]:
    return {
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


def _check_shapes(source: Source) -> None:
    if source.shape.blocks > len(source.weights):
        raise ImportFailure(f"its configuration asks for {source.shape.blocks} blocks; there are not so many tensors")
    expected, weights = _expected_shapes(source), source.weights
    if missing := [name for name in expected if name not in weights]:
        raise ImportFailure(f"tensor {PREFIX}{missing[0]} is missing")
    if unknown := [name for name in weights if name not in expected]:
        raise ImportFailure(f"tensor {printable(PREFIX + unknown[0])} is not one of this network's")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            found = printable(list(weights[name].shape), 60)
            raise ImportFailure(
                f"tensor {PREFIX}{name} has the shape {found}; the configuration asks for {list(shape)}"
            )
        if not weights[name].dtype.is_floating_point:
            raise ImportFailure(f"tensor {PREFIX}{name} is {weights[name].dtype}; floating point is needed")
