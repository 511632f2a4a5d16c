"""What reading a pickle without executing it leaves: records, and the table of globals that are admitted."""

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, eq=False, slots=True)
class Global:
    """A class or function that the pickle names. It was neither looked up nor imported."""

    name: str


@dataclass(eq=False, repr=False, slots=True)  # a repr could be endless
class Recorded:
    """What the pickle meant to make with a global that is not admitted: never made, only remembered.

    Attributes:
        name: of the global.
        args: what it was to be called with.
        state: what `__setstate__` or `__dict__` was to get.
        items: what was to be appended, added, or set as (key, value) pairs.
    """

    name: str
    args: Any
    state: Any = None
    items: list[Any] = field(default_factory=list)


@dataclass(frozen=True, eq=False, slots=True)
class StorageRecord:
    """A torch storage: the record that holds its bytes, the type and the number of its elements."""

    key: str
    dtype: torch.dtype
    elements: int


@dataclass(frozen=True, eq=False, slots=True)
class TensorRecord:
    """A torch tensor that was not read: a view of a storage. Offset and strides count elements."""

    storage: StorageRecord
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.storage.UntypedStorage": torch.uint8,
}

_TYPES = "bool bytearray bytes complex dict float frozenset int list long object set str tuple unicode"
_BUILTINS = {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _TYPES.split()}
_NODES = "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode InterpolationResultNode PathNode StringNode"
_OMEGACONF = {
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.UnionNode",
    *(f"omegaconf.nodes.{node}" for node in _NODES.split()),
}
EMPTY_DICTS = {"collections.OrderedDict", "collections.defaultdict"}
# how protocols before 4 write sets
SETS = {f"{module}.{each.__name__}": each for module in ("builtins", "__builtin__") for each in (set, frozenset)}
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"

# what a checkpoint is expected to name; whatever else it names is reported
EXPECTED = {*STORAGES, *_BUILTINS, *_OMEGACONF, *EMPTY_DICTS, REBUILD_TENSOR, REBUILD_PARAMETER, "typing.Any"}
