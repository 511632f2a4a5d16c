"""A checkpoint in, a bundle out: what `unmask import` does."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tokenizers import Tokenizer
from torch import Tensor

from unmask_model_store.bundle import CONFIG_FILE, DTYPES, write_bundle
from unmask_model_store.config import BUNDLE_CONFIG, BundleConfig, printable
from unmask_model_store.facts import ModelFacts, import_card
from unmask_model_store.importers import hugging_face, image, lit_gpt, megatron, prime
from unmask_model_store.importers.fold import fold
from unmask_model_store.importers.safetensors_files import open_file
from unmask_model_store.importers.source import Request, Source
from unmask_model_store.importers.tokenizers import GPT2_CLASSES, cached_gpt2, read_tokenizer
from unmask_model_store.importers.torch_file import TorchFile, open_torch_file
from unmask_model_store.importers.untrusted import ImportFailure, naming
from unmask_model_store.weights import LazyTensor

# called with the task ("checksum" or "weights"), bytes done and bytes in all
Progress = Callable[[str, int, int], None]

_CHUNK = 2**22
_MOST_IGNORED = 50  # names that the card lists


@dataclass(frozen=True)
class Imported:
    """The result of an import."""

    config: BundleConfig  # of the bundle
    has_tokenizer: bool
    ignored: tuple[str, ...]  # names in the file's pickle that were not expected, and not executed
    notes: tuple[str, ...] = ()  # what the importer assumed, in sentences


def import_checkpoint(request: Request, progress: Progress = lambda *_: None) -> Imported:
    """Turn an official checkpoint into a bundle. Nothing in the file is executed.

    Raises `ImportFailure` if the checkpoint or the tokenizer is wrong, `BundleError` if the bundle cannot be written.
    """
    check_place(request.out, request.force)
    with naming(request.file), open_source(request) as source:
        draft = _config(request, source, {})
        tokenizer = source.tokenizer or _tokenizer(request, draft.vocabulary_size)
        provenance = {
            "file": printable(request.file.absolute().name),
            "sha256": _sha256(source.files, progress),
            **source.provenance,
            "ignored": list(source.ignored[:_MOST_IGNORED]),
            **(request.origin or {}),
        }
        config = _config(request, source, provenance)
        tensors = _reporting(source.tensors, progress)
        card = import_card(ModelFacts.of(request.out, config, tokenizer is not None), config)
        write_bundle(request.out, config, tensors, tokenizer, card, replace=request.force, extras=source.extras)
    return Imported(config, tokenizer is not None, source.ignored, source.notes)


@contextmanager
def open_source(request: Request) -> Iterator[Source]:
    """Open a checkpoint: a file that torch wrote, or a folder in Hugging Face's layout (or a file or cache of it).

    The weights can be read as long as it is open. Raises `ImportFailure` if it is not a checkpoint of a known family.
    """
    path = request.file
    reference = path / "refs" / "main"  # of a repository's folder in the hub's cache
    if reference.is_file():
        path = path / "snapshots" / reference.read_text(encoding="utf-8", errors="replace").strip()
    if path.is_dir() and (folder := megatron.folder_of(path)) is not None:
        yield megatron.read_folder(folder, request)
    elif path.suffix == ".safetensors" and lit_gpt.is_known(tensors := open_file(path)):
        yield lit_gpt.read_tensors(tensors, path, request)
    elif path.is_dir() or path.suffix == ".safetensors":
        folder = path if path.is_dir() else path.parent
        if hugging_face.is_known(folder):
            yield hugging_face.read_folder(folder, request)
        else:
            with prime.open_hugging_face(folder, request.weights) as network:
                yield _prime_source(network, request)
    else:
        with open_torch_file(path) as opened:
            yield _torch_source(opened, path, request)


def _torch_source(opened: TorchFile, path: Path, request: Request) -> Source:
    if megatron.is_known(opened.content):
        return megatron.read_file(opened, path, request)
    if lit_gpt.is_known(lit_gpt.state_of(opened.content)):
        return lit_gpt.read_file(opened, path, request)
    if image.is_image_checkpoint(opened.content):
        return image.read_image_checkpoint(opened, path, request)
    return _prime_source(prime.read_lightning(opened, path, request.weights), request)


def _prime_source(network: prime.Network, request: Request) -> Source:
    request.takes("a text model of MDM-Prime or MDLM")
    keys = dataclasses.asdict(network.shape)
    keys |= {"architecture": "prime", "carry_over": network.carry_over, "canvas": request.canvas or "full"}
    tensors = fold(network, DTYPES[request.dtype or "float32"])
    return Source([network.file], keys, tensors, network.provenance, network.ignored)


def check_place(out: Path, force: bool) -> None:
    """Raise `ImportFailure` for a target that exists; `force` allows a bundle or an empty folder, nothing else."""
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        raise ImportFailure(f"{out}: exists already (--force replaces a bundle)", named=True)
    replaceable = out.is_dir() and ((out / CONFIG_FILE).is_file() or not any(out.iterdir()))
    if not replaceable:
        raise ImportFailure(f"{out}: is not a bundle; --force replaces only bundles", named=True)


def _config(request: Request, source: Source, provenance: Mapping[str, Any]) -> BundleConfig:
    try:
        return BUNDLE_CONFIG.validate_python({**source.config, "name": request.name, "provenance": dict(provenance)})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"][1:])  # the first names the architecture
        raise ImportFailure(f"{key + ': ' if key else ''}{first['msg']}") from error


def _tokenizer(request: Request, classes: int) -> Tokenizer | None:
    path = request.tokenizer
    if path is None and classes == GPT2_CLASSES:
        path = cached_gpt2()
    return None if path is None else read_tokenizer(path, classes)


def _sha256(files: Sequence[Path], progress: Progress) -> str:
    """The digest of the files' bytes, one behind the other."""
    digest, size, done = hashlib.sha256(), sum(file.stat().st_size for file in files), 0
    for file in files:
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
