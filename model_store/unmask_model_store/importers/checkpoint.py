"""A checkpoint in, a bundle out: what `unmask import` does."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from tokenizers import Tokenizer
from torch import Tensor

from unmask_model_store.bundle import CONFIG_FILE, DTYPES, write_bundle
from unmask_model_store.config import PrimeConfig
from unmask_model_store.importers.card import card_of
from unmask_model_store.importers.errors import ImportFailure, naming, printable
from unmask_model_store.importers.fold import fold
from unmask_model_store.importers.lightning import Weights, open_lightning
from unmask_model_store.importers.mdlm_hf import WEIGHTS_FILE, open_mdlm_folder
from unmask_model_store.importers.official import Source
from unmask_model_store.importers.tokenizers import GPT2_CLASSES, cached_gpt2, read_tokenizer
from unmask_model_store.weights import LazyTensor

Canvas = Literal["full", "as_requested"]
# called with what is being done, bytes done and bytes in all
Progress = Callable[[str, int, int], None]

_CHUNK = 2**22
_MOST_IGNORED = 50  # names of globals that the card lists


@dataclass(frozen=True)
class Request:
    """What is asked of an import.

    Attributes:
        file: a Lightning checkpoint, or a folder in Hugging Face's layout (or its `model.safetensors`).
        out: the bundle's folder.
        tokenizer: where it is; None: GPT-2's from the hub's cache for its 50257 classes, else none.
        name: what the server calls the model; None: the folder's name.
        dtype: of the blocks' projections in the bundle.
        weights: the EMA's, which official evaluation uses, or the raw ones.
        canvas: whether the network always sees its whole length, as in training.
        force: whether a bundle at `out` is replaced.
        origin: facts for the card beside those of the file: repository, revision.
    """

    file: Path
    out: Path
    tokenizer: Path | None = None
    name: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    weights: Weights = "ema"
    canvas: Canvas = "full"
    force: bool = False
    origin: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Imported:
    """What became of it.

    Attributes:
        config: of the bundle.
        has_tokenizer: whether the bundle has one.
        ignored: globals of the file's pickle that were not executed.
    """

    config: PrimeConfig
    has_tokenizer: bool
    ignored: tuple[str, ...]


def import_checkpoint(request: Request, progress: Progress = lambda *_: None) -> Imported:
    """Turn an official checkpoint into a bundle. Nothing in the file is executed.

    Raises:
        ImportFailure: the checkpoint or the tokenizer is not what it should be.
        BundleError: the bundle cannot be written.
    """
    check_place(request.out, request.force)
    with naming(request.file), _open(request) as (source, weights_file):
        draft = _config(request, source, {})
        tokenizer = _tokenizer(request, draft.vocabulary_size)
        facts = {
            "file": printable(request.file.absolute().name),
            "sha256": _sha256(weights_file, progress),
            **source.facts,
        }
        config = _config(
            request, source, facts | {"ignored": list(source.ignored[:_MOST_IGNORED])} | dict(request.origin or {})
        )
        tensors = _reporting(fold(source, DTYPES[request.dtype]), progress)
        card = card_of(config, request.out.resolve().name)
        write_bundle(request.out, config, tensors, tokenizer, card, replace=request.force)
    return Imported(config, tokenizer is not None, source.ignored)


def check_place(out: Path, force: bool) -> None:
    """Refuse a place where something is, before any work; `force` allows a bundle or an empty folder, nothing else.

    Raises:
        ImportFailure: there is something.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        raise ImportFailure(f"{out}: exists already (--force replaces a bundle)", named=True)
    replaceable = out.is_dir() and ((out / CONFIG_FILE).is_file() or not any(out.iterdir()))
    if not replaceable:
        raise ImportFailure(f"{out}: is not a bundle; --force replaces only bundles", named=True)


@contextmanager
def _open(request: Request) -> Iterator[tuple[Source, Path]]:
    """The network in the file, and the file that holds its weights."""
    file = _snapshot(request.file)
    if file.is_dir() or file.suffix == ".safetensors":
        folder = file if file.is_dir() else file.parent
        if request.weights != "ema":
            raise ImportFailure(
                "Hugging Face's layout holds one set of weights, the EMA's; --weights raw has none to take"
            )
        with open_mdlm_folder(folder) as source:
            yield source, folder / WEIGHTS_FILE
    else:
        with open_lightning(file, request.weights) as source:
            yield source, file


def _snapshot(file: Path) -> Path:
    """The snapshot of the main branch where the folder is a repository in the hub's cache, else the file itself."""
    reference = file / "refs" / "main"
    if not reference.is_file():
        return file
    return file / "snapshots" / reference.read_text(encoding="utf-8", errors="replace").strip()


def _config(request: Request, source: Source, provenance: Mapping[str, Any]) -> PrimeConfig:
    shape = source.shape
    try:
        return PrimeConfig(
            architecture="prime",
            name=request.name,
            length=shape.length,
            vocabulary_size=shape.vocabulary_size,
            sub_tokens_per_token=shape.sub_tokens_per_token,
            base=shape.base,
            carry_over=source.carry_over,
            canvas=request.canvas,
            provenance=dict(provenance),
            hidden_size=shape.hidden_size,
            blocks=shape.blocks,
            heads=shape.heads,
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
    """The same tensors, telling how many bytes of weights have been made so far."""
    sizes = {name: prod(tensor.shape) * tensor.dtype.itemsize for name, tensor in tensors.items()}
    made: set[str] = set()

    def read(name: str) -> Tensor:
        tensor = tensors[name].read()
        made.add(name)
        progress("weights", sum(sizes[each] for each in made), sum(sizes.values()))
        return tensor

    return {name: LazyTensor(t.shape, t.dtype, partial(read, name)) for name, t in tensors.items()}
