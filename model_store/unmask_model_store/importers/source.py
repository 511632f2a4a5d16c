"""What goes into an import, and what a family's importer makes of a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unmask_model_store.weights import LazyTensor

Canvas = Literal["full", "as_requested"]
Weights = Literal["ema", "raw"]


@dataclass(frozen=True)
class Request:
    """The options of an import."""

    file: Path  # a checkpoint, or a folder in Hugging Face's layout (or its `model.safetensors`)
    out: Path  # the bundle's folder
    tokenizer: Path | None = None  # None: GPT-2's from the hub's cache if there are 50257 classes, else none
    name: str | None = None  # the model's name for the server; None: the folder's name
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the blocks' projections, or convolutions, in the bundle
    weights: Weights = "ema"  # the EMA's, which official evaluation uses, or the raw ones
    canvas: Canvas = "full"  # full: the network always sees its whole length, as in training
    head_channels: int | None = None  # of an image model's attention heads; None: 64, as in all official ones
    force: bool = False  # replace the bundle at `out`
    origin: Mapping[str, str] | None = None  # more provenance for the card: repository, revision


@dataclass(frozen=True)
class Source:
    """A model in a checkpoint, checked, with its weights unread."""

    file: Path  # the file with the weights
    config: Mapping[str, Any]  # the keys of the bundle's configuration, without its name and provenance
    tensors: Mapping[str, LazyTensor]  # of the bundle
    provenance: Mapping[str, Any]  # for the card
    ignored: tuple[str, ...] = ()  # names in the file's pickle that were not expected, and not executed
