"""Folding time into the weights: official weights → the weights of `unmask_diffusion.PrimeDenoiser`.

A time-agnostic network always gets the noise level 0, so its condition c = silu(sigma_map(0)) is a constant, and so are
the modulations that every adaLN layer derives from it. With shift, scale and gate constant,

    norm(x) · w · (1 + scale) + shift      is a LayerNorm with weight w · (1 + scale) and bias shift,
    gate · (W h + b)                       is a projection with weight gate · W (row by row) and bias gate · b.

Computed in float64 and rounded once, to the dtype that is stored.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask_model_store.importers.prime import EMBEDDING, HEAD, Network
from unmask_model_store.importers.untrusted import ImportFailure
from unmask_model_store.weights import LazyTensor

_Change = Callable[[Tensor], Tensor]


def fold(network: Network, dtype: torch.dtype) -> dict[str, LazyTensor]:
    """The folded network's tensors; each is read and folded when it is written.

    Args:
        network: the official network.
        dtype: of the blocks' projections; everything else is float32, as in serving.
    """
    condition = _condition(network)
    tensors = {"embedding.weight": _lazy(network, EMBEDDING)}
    for i in range(network.shape.blocks):
        folded = _fold_block(network, f"blocks.{i}", condition, dtype)
        tensors |= {f"blocks.{i}.{name}": tensor for name, tensor in folded.items()}
    return tensors | _fold_output(network, condition)


def _condition(network: Network) -> Tensor:
    """C = silu(sigma_map(0)), float64 [cond_dim]. The noise level 0 is embedded as cos 0 = 1 and sin 0 = 0."""
    first = network.read("sigma_map.mlp.0.weight").double()
    half = first.shape[1] // 2
    embedding = torch.cat([torch.ones(half), torch.zeros(first.shape[1] - half)]).double()
    hidden = F.silu(first @ embedding + network.read("sigma_map.mlp.0.bias").double())
    second = network.read("sigma_map.mlp.2.weight").double()
    return F.silu(second @ hidden + network.read("sigma_map.mlp.2.bias").double())


def _modulations(network: Network, layer: str, condition: Tensor, count: int) -> tuple[Tensor, ...]:
    """The constant outputs of an adaLN layer, float64 [hidden] each."""
    weight, bias = network.read(f"{layer}.adaLN_modulation.weight"), network.read(f"{layer}.adaLN_modulation.bias")
    return (weight.double() @ condition + bias.double()).chunk(count)


def _fold_block(network: Network, block: str, condition: Tensor, dtype: torch.dtype) -> dict[str, LazyTensor]:
    shift1, scale1, gate1, shift2, scale2, gate2 = _modulations(network, block, condition, 6)
    return {
        **_norm(network, f"{block}.norm1", "norm1", shift1, scale1),
        "attn_qkv.weight": _lazy(network, f"{block}.attn_qkv.weight", dtype),
        "attn_out.weight": _lazy(network, f"{block}.attn_out.weight", dtype, lambda w: w * gate1[:, None]),
        **_norm(network, f"{block}.norm2", "norm2", shift2, scale2),
        "mlp_in.weight": _lazy(network, f"{block}.mlp.0.weight", dtype),
        "mlp_in.bias": _lazy(network, f"{block}.mlp.0.bias", dtype),
        "mlp_out.weight": _lazy(network, f"{block}.mlp.2.weight", dtype, lambda w: w * gate2[:, None]),
        "mlp_out.bias": _lazy(network, f"{block}.mlp.2.bias", dtype, lambda b: b * gate2),
    }


def _fold_output(network: Network, condition: Tensor) -> dict[str, LazyTensor]:
    """The last norm and the head. MDLM's column for the mask, the last, is left out."""
    shift, scale = _modulations(network, "output_layer", condition, 2)
    classes, hidden = network.shape.vocabulary_size, network.shape.hidden_size
    return {
        **_norm(network, "output_layer.norm_final", "norm_final", shift, scale),
        "output.weight": LazyTensor(
            (classes, hidden), torch.float32, lambda: network.read(f"{HEAD}.weight")[:classes].float()
        ),
        "output.bias": LazyTensor((classes,), torch.float32, lambda: network.read(f"{HEAD}.bias")[:classes].float()),
    }


def _norm(network: Network, official: str, name: str, shift: Tensor, scale: Tensor) -> dict[str, LazyTensor]:
    return {
        f"{name}.weight": _lazy(network, f"{official}.weight", change=lambda w: w * (1 + scale)),
        f"{name}.bias": LazyTensor(tuple(shift.shape), torch.float32, lambda: _rounded(f"{name}.bias", shift)),
    }


def _lazy(
    network: Network, official: str, dtype: torch.dtype = torch.float32, change: _Change | None = None
) -> LazyTensor:
    """An official tensor, changed in float64."""

    def read() -> Tensor:
        tensor = network.read(official)
        return (tensor.float() if change is None else _rounded(official, change(tensor.double()))).to(dtype)

    return LazyTensor(network.weights[official].shape, dtype, read)


def _rounded(name: str, tensor: Tensor) -> Tensor:
    """Float32: a bfloat16 bundle is then, bit for bit, what a float32 one becomes when it is served in bfloat16."""
    rounded = tensor.float()
    if not bool(rounded.isfinite().all()):
        raise ImportFailure(f"tensor {name} overflows float32 once its constant modulation is folded in")
    return rounded
