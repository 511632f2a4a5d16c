"""Reading tokenizers: `tokenizer.json`, GPT-2's pair of files, or a folder in the format of transformers."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from unmask_model_store.bundle import TOKENIZER_FILE
from unmask_model_store.config import printable
from unmask_model_store.importers.untrusted import ImportFailure, naming

# vocabulary and merges: in the names of transformers, and of OpenAI
PAIRS = {"vocab.json": "merges.txt", "encoder.json": "vocab.bpe"}

GPT2_CLASSES = 50257
GPT2_REPOSITORIES = ("openai-community/gpt2", "gpt2")
GPT2_END = "<|endoftext|>"


def read_tokenizer(path: Path, classes: int) -> Tokenizer:
    """Read a tokenizer: `tokenizer.json`, one file of GPT-2's pair beside the other, or a folder that holds either.

    Raises `ImportFailure` if there is none, it is broken, or its number of tokens is not `classes`.
    """
    vocabulary, merges = _files(path)
    with naming(vocabulary):
        tokenizer = _read_json(vocabulary, classes) if merges is None else _read_pair(vocabulary, merges)
        tokens = 1 + max(tokenizer.get_vocab().values(), default=-1)
        if tokens != classes:
            raise ImportFailure(f"the tokenizer has {tokens} tokens; the checkpoint has {classes} classes")
    return tokenizer


def cached_gpt2() -> Path | None:
    """GPT-2's tokenizer in the hub's cache on this machine, or None."""
    from huggingface_hub import try_to_load_from_cache  # a slow import that few commands need

    for repository in GPT2_REPOSITORIES:
        for names in ((TOKENIZER_FILE,), *PAIRS.items()):
            found = [try_to_load_from_cache(repository, name) for name in names]
            if all(isinstance(file, str) for file in found):
                return Path(str(found[0]))
    return None


def _files(path: Path) -> tuple[Path, Path | None]:
    """The file of the vocabulary, and that of the merges if there are two files."""
    if path.is_dir():
        for name in (TOKENIZER_FILE, *PAIRS):
            if (path / name).is_file():
                return _files(path / name)
        raise ImportFailure(f"{path}: holds no {TOKENIZER_FILE}, vocab.json or encoder.json", named=True)
    if not path.is_file():
        raise ImportFailure(f"{path}: there is no such tokenizer", named=True)
    for vocabulary, merges in PAIRS.items():
        if path.name in (vocabulary, merges):
            return path.with_name(vocabulary), path.with_name(merges)
    return path, None


def _json(file: Path) -> object:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ImportFailure("is not valid JSON") from error


def _read_json(file: Path, classes: int) -> Tokenizer:
    """A `tokenizer.json`, without the tokens that were added beyond the classes (GPT-2's `[PAD]` in official runs)."""
    content = _json(file)
    if not isinstance(content, dict) or "model" not in content:
        raise ImportFailure("is not a tokenizer.json")
    added = content.get("added_tokens") or []
    if isinstance(added, list):
        content["added_tokens"] = [t for t in added if not (isinstance(t, dict) and _beyond(t.get("id"), classes))]
    try:
        tokenizer: Tokenizer = Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ImportFailure(f"is not a tokenizer: {printable(error)}") from error
    return tokenizer


def _beyond(token_id: object, classes: int) -> bool:
    return isinstance(token_id, int) and token_id >= classes


def _read_pair(vocabulary: Path, merges: Path) -> Tokenizer:
    """GPT-2's byte-level BPE from its two files."""
    ids = _json(vocabulary)
    if not isinstance(ids, dict) or not all(type(i) is int and 0 <= i < 2**31 for i in ids.values()):
        raise ImportFailure("is not a vocabulary: token → id")
    try:
        lines = merges.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise ImportFailure(f"its merges {merges} cannot be read: {printable(error)}") from error
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    try:
        tokenizer = Tokenizer(models.BPE(ids, [(left, right) for left, right in pairs]))
    except Exception as error:  # a bare Exception again, or a line that is not a pair
        raise ImportFailure(f"does not fit its merges {merges}: {printable(error)}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    if GPT2_END in ids:
        tokenizer.add_special_tokens([AddedToken(GPT2_END, special=True, normalized=False)])
    return tokenizer
