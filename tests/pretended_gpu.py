"""A GPU that is not there: tensors in memory that say they are elsewhere, and counts of what a GPU would have to do.

Operations of torch compute on the CPU, Triton kernels in its interpreter. Their device is called "meta", the only one
that every torch knows. Counted is what starts a kernel on a GPU, and what copies to or from it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partialmethod
from typing import Any, Self, cast
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only
from triton.runtime.interpreter import GridExecutor
from unmask_kernels import dispatch

GPU = torch.device("meta")
CPU = torch.device("cpu")
PRODUCTS = {"aten.mm", "aten.addmm", "aten.bmm", "_linear_kernel"}
NO_KERNEL = {
    "aten.empty",
    "aten.empty_like",
    "aten.new_empty",
    "aten.empty_strided",
    "aten.detach",
    "aten._unsafe_view",
}
WAITING = {"aten._local_scalar_dense", "aten.nonzero", "aten.equal"}


class OnGpu(Tensor):
    """A tensor that says it is on the pretended GPU; its numbers are those of `held`."""

    held: Tensor

    @staticmethod
    def __new__(cls: type[Self], held: Tensor) -> Self:
        facts: dict[str, Any] = {
            "strides": held.stride(),
            "storage_offset": held.storage_offset(),
            "dtype": held.dtype,
            "device": GPU,
        }
        made: Self = Tensor._make_wrapper_subclass(cls, held.shape, **facts)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any) -> Any:  # noqa: ANN401
        raise RuntimeError(f"{func} of a tensor on the pretended GPU, which has gone")

    def data_ptr(self) -> int:
        return self.held.data_ptr()


class PretendedGpu(TorchDispatchMode):
    """While this context is active, tensors can be on the GPU. Counts are by the name of the operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: Counter[str] = Counter()  # kernels that multiply matrices, attention among them
        self.launches: Counter[str] = Counter()  # all other kernels
        self.uploads: Counter[str] = Counter()  # copies to the GPU
        self.downloads: Counter[str] = Counter()  # copies from the GPU, and whatever else waits for it
        self._patches = ExitStack()

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        _: object,
        args: Sequence[Any] = (),
        given: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = dict(given or {})
        if func._can_decompose():
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        name = str(func.overloadpacket)
        tensors: list[Tensor] = []
        tree_map_only(Tensor, tensors.append, (args, kwargs))
        from_gpu = any(isinstance(each, OnGpu) for each in tensors)
        target = kwargs.get("device")
        to_gpu = target == GPU or (from_gpu and target is None)
        if target == GPU:
            kwargs["device"] = CPU
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False  # without a GPU there is no such memory
        args, kwargs = tree_map_only(OnGpu, lambda each: each.held, (args, kwargs))
        written = given["out"] if given and "out" in given else None
        if name.endswith("_") or name == "aten.set":
            written = tensors[0]
        result = func(*args, **kwargs)
        if not from_gpu and not to_gpu:
            return result
        if written is not None:
            to_gpu = isinstance(written, OnGpu)
        if name in WAITING or (from_gpu and not to_gpu):
            self.downloads[name] += 1
        # an index, or another number of which a tensor is made, goes there first
        if moved := to_gpu * sum(each.ndim > 0 for each in tensors if not isinstance(each, OnGpu)):
            self.uploads[name] += moved
        if from_gpu and to_gpu and not func.is_view and name not in NO_KERNEL:
            (self.products if name in PRODUCTS else self.launches)[name] += 1
        elif not from_gpu and not tensors and name not in NO_KERNEL:
            self.launches[name] += 1
        if written is not None:
            return written
        return tree_map_only(Tensor, OnGpu, result) if to_gpu else result

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
        self.products["attention"] += 1
        held = (each.held for each in (q, k, v) if isinstance(each, OnGpu))
        with _disable_current_modes(), sdpa_kernel(SDPBackend.MATH):
            attended = (
                _attend(*cast("tuple[Tensor, Tensor, Tensor]", tuple(held)), **options)
                .transpose(1, 2)
                .contiguous()
                .transpose(1, 2)
            )  # as on a GPU
        return OnGpu(attended)

    def take(self, network: nn.Module) -> None:
        """Move a network here."""
        for module in network.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    module._parameters[name] = nn.Parameter(OnGpu(weight.data.clone()), requires_grad=False)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = OnGpu(buffer.clone())

    def forget(self) -> None:
        """Count from now on."""
        for counts in (self.products, self.launches, self.uploads, self.downloads):
            counts.clear()

    def __enter__(self) -> Self:
        # a mode is entered again and again, while operations are taken apart
        if self not in _active:
            for owner, name, put in (
                (GridExecutor, "__call__", partialmethod(_launched, self)),
                (F, "scaled_dot_product_attention", self._attend),
                (OnGpu, "tolist", partialmethod(_listed, self)),
                (dispatch, "on_gpu", lambda tensor: tensor.device == GPU),
            ):
                self._patches.enter_context(patch.object(owner, name, put))
        _active.append(self)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *about: Any) -> None:  # noqa: ANN401
        super().__exit__(*about)  # type: ignore[no-untyped-call]
        _active.pop()
        if self not in _active:
            self._patches.close()


_active: list[PretendedGpu] = []
_run = GridExecutor.__call__
_attend = F.scaled_dot_product_attention


def _launched(executor: GridExecutor, gpu: PretendedGpu, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
    """Run a Triton kernel on what the tensors hold."""
    name = executor.fn.__name__
    (gpu.products if name in PRODUCTS else gpu.launches)[name] += 1
    args, kwargs = tree_map_only(OnGpu, lambda each: each.held, (args, kwargs))
    with _disable_current_modes():
        _run(executor, *args, **kwargs)


def _listed(tensor: OnGpu, gpu: PretendedGpu) -> Any:  # noqa: ANN401
    gpu.downloads["tolist"] += 1
    return tensor.held.tolist()
