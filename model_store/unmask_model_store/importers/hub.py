"""Checkpoints from the Hugging Face hub: huggingface-hub's own download with its cache, tokens and progress bar."""

import contextlib
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from unmask_model_store.bundle import CONFIG_FILE, SHARDS_FILE, WEIGHTS_FILE
from unmask_model_store.config import printable
from unmask_model_store.importers import hugging_face
from unmask_model_store.importers.safetensors_files import shards_of
from unmask_model_store.importers.untrusted import ImportFailure

PRIME_REPOSITORY = "chen-hao-chao/mdm-prime"
MDLM_REPOSITORY = "kuleshov-group/mdlm-owt"
MDLM_FLOAT32_REPOSITORY = "kuleshov-group/mdlm-no_flashattn-fp32-owt"
V2_REPOSITORY = "chen-hao-chao/mdm-prime-v2-slimpajama"
V2_FILE = "mdm-prime-v2-3300flops-weight-only.pth"
PRIME_SUB_TOKENS = (2, 3, 4, 6, 8)
# the image models, in the repository of MDM-Prime: by the sub-tokens of a token the epoch that its file is named after
SUPER = "super-token"
IMAGE_EPOCHS: dict[str, dict[int | str, int]] = {
    "cifar10": {SUPER: 2249, 1: 2499, 2: 4249, 3: 3499, 4: 2499, 8: 1499},
    "imagenet32": {SUPER: 599, 1: 674, 2: 974, 3: 1049, 4: 899, 8: 649},
}
IMAGE_MODELS = {f"mdm-prime-{data}": data for data in IMAGE_EPOCHS}
# the names that the official models go by
KNOWN = {"mdm-prime-owt": PRIME_REPOSITORY, "mdlm-owt": MDLM_REPOSITORY, "mdlm-owt-fp32": MDLM_FLOAT32_REPOSITORY}
KNOWN |= {
    "llada-8b-base": "GSAI-ML/LLaDA-8B-Base",
    "llada-8b-instruct": "GSAI-ML/LLaDA-8B-Instruct",
    "llada-1.5": "GSAI-ML/LLaDA-1.5",
    "dream-7b-base": "Dream-org/Dream-v0-Base-7B",
    "dream-7b-instruct": "Dream-org/Dream-v0-Instruct-7B",
}
# the same, for files in a repository
KNOWN_FILES = {
    "mdm-prime-owt-l4-reproduce": (PRIME_REPOSITORY, "text/owt/results_prime_l4_owt_reproduce/checkpoint.ckpt"),
    "mdm-prime-owt-l1-reproduce": (PRIME_REPOSITORY, "text/owt/results_mdm_owt_reproduce/checkpoint.ckpt"),
    "mdm-prime-v2-slimpajama": (V2_REPOSITORY, V2_FILE),
}
# what the file of a repository does not say
V2_SIZES: dict[str, Any] = {"heads": 14, "sub_tokens": 15, "base": 2, "length": 2048}
# files of a model's folder beside its configuration and weights
BESIDE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
)
CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class Wanted:
    """A checkpoint to fetch."""

    repository: str  # owner/name on the hub
    file: str | None  # the checkpoint in the repository; None: the repository is a model in Hugging Face's layout
    name: str  # default name of the bundle
    revision: str | None = None  # branch, tag or commit; None: the main branch

    @property
    def official(self) -> bool:
        """Whether it is one of the official text models, which use GPT-2's tokenizer."""
        known = (PRIME_REPOSITORY, MDLM_REPOSITORY, MDLM_FLOAT32_REPOSITORY)
        return self.repository in known and not (self.file or "").startswith("image/")

    @property
    def sizes(self) -> dict[str, Any]:
        """Options of the import that the file of a known model needs."""
        return V2_SIZES if (self.repository, self.file) == (V2_REPOSITORY, V2_FILE) else {}

    def facts(self, fetched: Path) -> dict[str, str]:
        """The origin, for the card. The hub's cache names a snapshot's folder after its commit."""
        after_repository = fetched.as_posix().rpartition("/models--")[2].split("/")
        commit = after_repository[2] if after_repository[1:2] == ["snapshots"] else self.revision
        file = {"file": self.file} if self.file else {}
        return {"repository": self.repository, **({"revision": commit} if commit else {}), **file}


def parse(
    target: str, sub_tokens: int | None, carry_over: bool, revision: str | None, super_token: bool = False
) -> Wanted:
    """Parse `REPO[/PATH]` or a known name; raise `ImportFailure` if it is neither, or does not say which model."""
    if target in IMAGE_MODELS:
        if carry_over:
            raise ImportFailure(f"{target}: --carry-over chooses among the models of mdm-prime-owt only")
        return _image(target, SUPER if super_token else sub_tokens, revision)
    if super_token:
        raise ImportFailure(f"{printable(target)}: --super-token is for {' and '.join(IMAGE_MODELS)}")
    if target in KNOWN_FILES and sub_tokens is None and not carry_over:
        return Wanted(*KNOWN_FILES[target], target, revision)
    repository, file = _split(target)
    if repository == PRIME_REPOSITORY and file is None:
        if sub_tokens not in PRIME_SUB_TOKENS:
            raise ImportFailure(
                f"{target}: say which with --sub-tokens: {', '.join(map(str, PRIME_SUB_TOKENS))} were trained"
            )
        variant = f"l{sub_tokens}{'_co' if carry_over else ''}"
        path = f"text/owt/results_prime_{variant}_owt/checkpoint.ckpt"
        return Wanted(repository, path, f"mdm-prime-owt-{variant}".replace("_", "-"), revision)
    if sub_tokens is not None or carry_over:
        raise ImportFailure(f"{target}: --sub-tokens and --carry-over choose among the models of mdm-prime-owt only")
    return Wanted(repository, file, _name(repository, file), revision)


def _image(target: str, which: int | str | None, revision: str | None) -> Wanted:
    data = IMAGE_MODELS[target]
    if which not in IMAGE_EPOCHS[data]:
        numbers = ", ".join(str(each) for each in IMAGE_EPOCHS[data] if each != SUPER)
        raise ImportFailure(f"{target}: say which with --sub-tokens, {numbers} were trained, or with --super-token")
    kind = {SUPER: "prime_supertoken", 1: "mdm"}.get(which, f"prime_l{which}")
    path = f"image/{data}/results_{kind}_{data}/checkpoint-{IMAGE_EPOCHS[data][which]}.pth"
    return Wanted(PRIME_REPOSITORY, path, f"{target}-{which if which == SUPER else f'l{which}'}", revision)


def _split(target: str) -> tuple[str, str | None]:
    if target in KNOWN:
        return KNOWN[target], None
    if target in KNOWN_FILES:
        return KNOWN_FILES[target]
    parts = target.split("/")
    if len(parts) < 2 or not all(parts) or ".." in parts:
        known = ", ".join([*KNOWN, *KNOWN_FILES, *IMAGE_MODELS])
        raise ImportFailure(f"{printable(target)}: is neither OWNER/NAME, OWNER/NAME/PATH nor one of {known}")
    return "/".join(parts[:2]), "/".join(parts[2:]) or None


def _name(repository: str, file: str | None) -> str:
    """`owner/model` → model; a checkpoint in a folder of its own is called after the folder."""
    parts = [repository.split("/")[1], *(file or "").split("/")]
    chosen = parts[0] if file is None else parts[-2] if len(parts) > 2 else Path(parts[-1]).stem
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in chosen)


def fetch(wanted: Wanted) -> Path:
    """Download what is not in the cache; return the path of the checkpoint or of the folder in Hugging Face's layout.

    Raises `ImportFailure` if it does not exist, may not be read, or the hub cannot be reached.
    """
    if wanted.file is not None:
        return _download(wanted, wanted.file)
    folder = _download(wanted, CONFIG_FILE).parent
    if not hugging_face.is_known(folder):
        return _download(wanted, WEIGHTS_FILE).parent
    for name in BESIDE:
        with contextlib.suppress(ImportFailure):  # each model has some of these
            _download(wanted, name)
    try:
        _download(wanted, SHARDS_FILE)
    except ImportFailure:
        return _download(wanted, WEIGHTS_FILE).parent
    for shard in shards_of(folder):
        _download(wanted, shard)
    return folder


def fetch_gpt2() -> Path | None:
    """GPT-2's tokenizer; None if the hub cannot be reached: the import continues without."""
    try:
        return _download(Wanted("openai-community/gpt2", None, "gpt2"), "tokenizer.json")
    except ImportFailure:
        return None


def _download(wanted: Wanted, file: str) -> Path:
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # an error is reported once, here
    with _one_line(wanted, file):
        return Path(
            hf_hub_download(wanted.repository, file, revision=wanted.revision, local_files_only=not _reachable())
        )


def _reachable() -> bool:
    """Whether the hub's address accepts a connection; the hub's own client would retry for half a minute."""
    hub = urlsplit(constants.ENDPOINT)
    if hub.hostname is None or hub.scheme in getproxies():
        return True  # let the hub's client find out
    try:
        port = hub.port or {"http": 80}.get(hub.scheme, 443)
        with socket.create_connection((hub.hostname, port), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False


@contextmanager
def _one_line(wanted: Wanted, file: str) -> Iterator[None]:
    """Turn the errors of the hub's client into one line each."""
    where = wanted.repository + (f" (revision {printable(wanted.revision)})" if wanted.revision else "")
    try:
        yield
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError) as error:
        raise ImportFailure(
            f"{where}: the Hugging Face hub cannot be reached, and {file} is not in the cache on this machine"
        ) from error
    except GatedRepoError as error:
        raise ImportFailure(
            f"{where}: is gated: accept its terms on the hub and log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ImportFailure(
            f"{where}: there is no such repository, or it is private and you are not logged in"
        ) from error
    except RevisionNotFoundError as error:
        raise ImportFailure(f"{where}: there is no such revision") from error
    except EntryNotFoundError as error:
        raise ImportFailure(f"{where}: has no file {printable(file)}; name one: OWNER/NAME/PATH") from error
    except (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError) as error:
        raise ImportFailure(f"{where}: {printable(' '.join(str(error).split()), 200)}") from error
