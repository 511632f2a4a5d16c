"""What goes into an import, and what a family's importer makes of a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from unmask_model_store.importers.untrusted import ImportFailure
from unmask_model_store.weights import LazyTensor

Canvas = Literal["full", "as_requested"]
Weights = Literal["ema", "raw"]
# options that not every family has
_OPTIONS = ("codes", "heads", "sub_tokens", "base", "length", "mask_id", "head_channels")


@dataclass(frozen=True)
class Request:
    """The options of an import."""

    file: Path  # a checkpoint, or a folder in Hugging Face's layout (or its `model.safetensors`)
    out: Path  # the bundle's folder
    tokenizer: Path | None = None  # None: GPT-2's from the hub's cache if there are 50257 classes, else none
    name: str | None = None  # the model's name for the server; None: the folder's name
    # of the blocks' projections, or convolutions, in the bundle; None: float32, or as a llama-shaped network has them
    dtype: Literal["float32", "bfloat16"] | None = None
    weights: Weights = "ema"  # the EMA's, which official evaluation uses, or the raw ones
    # full: the network always sees its whole length; None: as the family is trained and sampled
    canvas: Canvas | None = None
    # what llama-shaped checkpoints do not say: the shuffle table, attention heads, digits of a token, their base, the
    # longest canvas, and the mask's token
    codes: Path | None = None
    heads: int | None = None
    sub_tokens: int | None = None
    base: int | None = None
    length: int | None = None
    mask_id: int | None = None
    head_channels: int | None = None  # of an image model's attention heads; None: 64, as in all official ones
    force: bool = False  # replace the bundle at `out`
    origin: Mapping[str, str] | None = None  # more provenance for the card: repository, revision

    def takes(self, family: str, *options: str) -> None:
        """Raise `ImportFailure` for an option that is not for a family: nothing that is given is ignored."""
        for option in _OPTIONS:
            if getattr(self, option) is not None and option not in options:
                raise ImportFailure(f"is {family}; --{option.replace('_', '-')} is not for it")


@dataclass(frozen=True)
class Source:
    """A model in a checkpoint, checked, with its weights unread."""

    files: Sequence[Path]  # the files with the weights
    config: Mapping[str, Any]  # the keys of the bundle's configuration, without its name and provenance
    tensors: Mapping[str, LazyTensor]  # of the bundle
    provenance: Mapping[str, Any]  # for the card
    ignored: tuple[str, ...] = ()  # names in the file's pickle that were not expected, and not executed
    tokenizer: Tokenizer | None = None  # the folder's own
    extras: Mapping[str, str] = field(default_factory=dict)  # further files for the bundle
    notes: tuple[str, ...] = ()  # what the importer assumed, in sentences
