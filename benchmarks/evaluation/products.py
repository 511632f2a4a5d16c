"""The bare matrix products of an evaluation, recorded from a real one and repeated alone."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from unmask_diffusion import ActiveSample, Model, evaluate
from unmask_diffusion.networks import heads, prime, transformer
from unmask_kernels.linear import TILE

from benchmarks.machine_limits import seconds_of

SCORES = 1 << 20  # attention scores computed together, so that they stay in cache

Kind = Literal["linear", "attention", "head"]


@dataclass(frozen=True)
class Product:
    """Matrix products [rows, inner] x [inner, columns]; for attention also [rows, columns] x [columns, inner]."""

    kind: Kind  # what it is part of
    rows: int
    inner: int
    columns: int
    count: int = 1  # how many times: for attention canvases · heads
    weight: Tensor | None = None  # [columns, inner], or None for attention

    @property
    def flops(self) -> int:
        return (2 if self.kind == "attention" else 1) * 2 * self.rows * self.inner * self.columns * self.count

    def bytes_moved(self, dtype: torch.dtype) -> int:
        """Operands read once and results written once; scores stay in cache."""
        sides = (self.rows + self.columns) * self.inner
        results = sides if self.kind == "attention" else self.rows * self.columns
        return (sides + results) * self.count * dtype.itemsize


def products_of(model: Model, samples: Sequence[ActiveSample]) -> list[Product]:
    """The products of one evaluation, in order, rows filled up to whole tiles; the head counts with all its classes."""
    found: list[Product] = []

    def linear(x: Tensor, weight: Tensor, *_: object) -> None:
        found.append(Product("linear", -(-len(x) // TILE) * TILE, weight.shape[1], len(weight), weight=weight))

    def attend(q: Tensor, k: Tensor, *_: object) -> None:
        canvases, queries, heads, width = q.shape
        found.append(Product("attention", queries, width, k.shape[1], canvases * heads))

    def head(hidden: Tensor, weight: Tensor, *_: object) -> None:
        found.append(Product("head", len(hidden), weight.shape[1], len(weight), weight=weight))

    seen = {
        (prime, "fixed_tile_linear"): linear,
        (prime, "linear_gelu_tanh"): linear,
        (transformer, "fixed_tile_linear"): linear,
        (transformer, "attention"): attend,
        (heads, "draw_from_hidden"): head,
    }
    with ExitStack() as stack:
        for (module, name), note in seen.items():
            stack.enter_context(patch.object(module, name, _noted(note, getattr(module, name))))
        evaluate(model, samples)
    return found


def _noted(note: Callable[..., None], function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 — whatever the function takes
        note(*args)
        return function(*args, **kwargs)

    return call


class BareProducts:
    """Products in one dtype with their operands, to run repeatedly. No biases, no activations."""

    def __init__(self, products: Sequence[Product], dtype: torch.dtype, device: torch.device) -> None:
        self._tensors: dict[tuple[object, ...], Tensor] = {}
        self._device = device
        self._calls: dict[Kind, list[Callable[[], object]]] = {"linear": [], "attention": [], "head": []}
        for each in products:
            if each.weight is None:
                self._calls[each.kind].append(self._attention(each, dtype))
            else:
                self._calls[each.kind].append(self._linear(each.rows, each.weight.to(dtype)))

    def seconds(self, _turn: int = 0) -> dict[str, float]:
        return {
            kind: seconds_of(lambda calls=calls: [call() for call in calls], self._device)  # type: ignore[misc]
            for kind, calls in self._calls.items()
        }

    def _tensor(self, use: str, dtype: torch.dtype, *shape: int) -> Tensor:
        # one tensor for all uses of a kind and shape
        if (use, *shape) not in self._tensors:
            self._tensors[use, *shape] = torch.randn(shape, device=self._device).to(dtype)
        return self._tensors[use, *shape]

    def _linear(self, rows: int, weight: Tensor) -> Callable[[], object]:
        x = self._tensor("input", weight.dtype, rows, weight.shape[1])
        out = self._tensor("output", weight.dtype, rows, len(weight))
        return (lambda: torch.mv(weight, x[0])) if rows == 1 else (lambda: torch.mm(x, weight.T, out=out))

    def _attention(self, product: Product, dtype: torch.dtype) -> Callable[[], object]:
        q = self._tensor("queries", dtype, product.count, product.rows, product.inner)
        k = self._tensor("keys", dtype, product.count, product.columns, product.inner)
        if self._device.type == "cuda":  # scores don't leave the chip
            return lambda: F.scaled_dot_product_attention(q[None], k[None], k[None])
        together = max(1, SCORES // (product.rows * product.columns))
        pairs = list(zip(q.split(together), k.split(together), strict=True))

        def both() -> None:
            for queries, keys in pairs:
                torch.bmm(torch.bmm(queries, keys.mT), keys)

        return both
