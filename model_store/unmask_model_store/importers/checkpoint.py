"""A checkpoint in, a bundle out: what `unmask import` does."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from tokenizers import Tokenizer
from torch import Tensor

from unmask_model_store.bundle import CONFIG_FILE, DTYPES, write_bundle
from unmask_model_store.config import PrimeConfig, printable
from unmask_model_store.facts import ModelFacts, import_card
from unmask_model_store.importers.fold import fold
from unmask_model_store.importers.prime import Source, Weights, open_source
from unmask_model_store.importers.tokenizers import GPT2_CLASSES, cached_gpt2, read_tokenizer
from unmask_model_store.importers.untrusted import ImportFailure, naming
from unmask_model_store.weights import LazyTensor

Canvas = Literal["full", "as_requested"]
# called with the task ("checksum" or "weights"), bytes done and bytes in all
Progress = Callable[[str, int, int], None]

_CHUNK = 2**22
_MOST_IGNORED = 50  # names that the card lists


@dataclass(frozen=True)
class Request:
    """The options of an import."""

    file: Path  # a Lightning checkpoint, or a folder in Hugging Face's layout (or its `model.safetensors`)
    out: Path  # the bundle's folder
    tokenizer: Path | None = None  # None: GPT-2's from the hub's cache if there are 50257 classes, else none
    name: str | None = None  # the model's name for the server; None: the folder's name
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the blocks' projections in the bundle
    weights: Weights = "ema"  # the EMA's, which official evaluation uses, or the raw ones
    canvas: Canvas = "full"  # full: the network always sees its whole length, as in training
    force: bool = False  # replace the bundle at `out`
    origin: Mapping[str, str] | None = None  # more provenance for the card: repository, revision


@dataclass(frozen=True)
class Imported:
    """The result of an import."""

    config: PrimeConfig  # of the bundle
    has_tokenizer: bool
    ignored: tuple[str, ...]  # names in the file's pickle that were not expected, and not executed


def import_checkpoint(request: Request, progress: Progress = lambda *_: None) -> Imported:
    """Turn an official checkpoint into a bundle. Nothing in the file is executed.

    Raises `ImportFailure` if the checkpoint or the tokenizer is wrong, `BundleError` if the bundle cannot be written.
    """
    check_place(request.out, request.force)
    with naming(request.file), open_source(request.file, request.weights) as source:
        draft = _config(request, source, {})
        tokenizer = _tokenizer(request, draft.vocabulary_size)
        provenance = {
            "file": printable(request.file.absolute().name),
            "sha256": _sha256(source.file, progress),
            **source.provenance,
            "ignored": list(source.ignored[:_MOST_IGNORED]),
            **(request.origin or {}),
        }
        config = _config(request, source, provenance)
        tensors = _reporting(fold(source, DTYPES[request.dtype]), progress)
        card = import_card(ModelFacts.of(request.out, config, tokenizer is not None), config)
        write_bundle(request.out, config, tensors, tokenizer, card, replace=request.force)
    return Imported(config, tokenizer is not None, source.ignored)


def check_place(out: Path, force: bool) -> None:
    """Raise `ImportFailure` for a target that exists; `force` allows a bundle or an empty folder, nothing else."""
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        raise ImportFailure(f"{out}: exists already (--force replaces a bundle)", named=True)
    replaceable = out.is_dir() and ((out / CONFIG_FILE).is_file() or not any(out.iterdir()))
    if not replaceable:
        raise ImportFailure(f"{out}: is not a bundle; --force replaces only bundles", named=True)


def _config(request: Request, source: Source, provenance: Mapping[str, Any]) -> PrimeConfig:
    try:
        return PrimeConfig(
            architecture="prime",
            name=request.name,
            carry_over=source.carry_over,
            canvas=request.canvas,
            provenance=dict(provenance),
            **dataclasses.asdict(source.shape),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ImportFailure(f"{key + ': ' if key else ''}{first['msg']}") from error


def _tokenizer(request: Request, classes: int) -> Tokenizer | None:
    path = request.tokenizer
    if path is None and classes == GPT2_CLASSES:
        path = cached_gpt2()
    return None if path is None else read_tokenizer(path, classes)


def _sha256(file: Path, progress: Progress) -> str:
    digest, size, done = hashlib.sha256(), file.stat().st_size, 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress("checksum", done, size)
    return digest.hexdigest()


def _reporting(tensors: Mapping[str, LazyTensor], progress: Progress) -> dict[str, LazyTensor]:
    """The same tensors; reading one reports the bytes of all that have been read."""
    sizes = {name: prod(tensor.shape) * tensor.dtype.itemsize for name, tensor in tensors.items()}
    total, done = sum(sizes.values()), 0

    def read(name: str) -> Tensor:
        nonlocal done
        tensor = tensors[name].read()
        done += sizes[name]
        progress("weights", done, total)
        return tensor

    return {name: LazyTensor(t.shape, t.dtype, partial(read, name)) for name, t in tensors.items()}
