"""What the tensors of a bundle must be; every fault is named."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from unmask_model_store.errors import BundleError


def check_tensors(file: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Hold the tensors that were read to the names and shapes that the configuration asks for.

    Raises:
        BundleError: one is missing, unknown, of another shape, not floating point, or holds NaN.
    """
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise BundleError(f"{file}: tensor {missing[0]} is missing")
    if unknown := sorted(tensors.keys() - shapes.keys()):
        raise BundleError(f"{file}: tensor {unknown[0]} is not one of this architecture's")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            found = list(tensors[name].shape)
            raise BundleError(f"{file}: tensor {name} has the shape {found}; the configuration asks for {list(shape)}")
        if not tensors[name].is_floating_point():
            raise BundleError(f"{file}: tensor {name} is {tensors[name].dtype}; floating point is needed")
        if bool(tensors[name].isnan().any()):
            raise BundleError(f"{file}: tensor {name} holds NaN")


def check_finite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse infinite weights.

    Raises:
        BundleError: a tensor holds one.
    """
    for name, tensor in tensors.items():
        if bool(tensor.isinf().any()):
            raise BundleError(f"{file}: tensor {name} holds inf")


def check_log_weights(file: Path, name: str, weights: Tensor) -> None:
    """Refuse log-probabilities [..., C] whose rows are no distributions even after normalising; -inf is a zero.

    Raises:
        BundleError: +inf, or a row of zeros only.
    """
    highest = weights.amax(-1)
    if bool((highest == torch.inf).any()):
        raise BundleError(f"{file}: tensor {name} holds inf")
    if bool((highest == -torch.inf).any()):
        raise BundleError(f"{file}: tensor {name} leaves nothing possible: a row of it is -inf throughout")
