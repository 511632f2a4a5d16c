"""Reading tokenizers: `tokenizer.json`, GPT-2's pair of files, or a folder in the format of transformers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from unmask_model_store.bundle import TOKENIZER_FILE
from unmask_model_store.config import printable
from unmask_model_store.importers.untrusted import ImportFailure, Literals, naming

# vocabulary and merges: in the names of transformers, and of OpenAI
PAIRS = {"vocab.json": "merges.txt", "encoder.json": "vocab.bpe"}

CHAT_TEMPLATE_FILE = "chat_template.jinja"

GPT2_CLASSES = 50257
GPT2_REPOSITORIES = ("openai-community/gpt2", "gpt2")
GPT2_END = "<|endoftext|>"

# Qwen2's pieces, first match wins: a contraction; letters with at most one sign before them; one digit; signs and line
# ends; white space
QWEN_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# tokenizers that have these pieces, by what their class is called
QWEN_CLASSES = ("Qwen2", "Dream")


def read_tokenizer(path: Path, classes: int, fewer: bool = False) -> Tokenizer:
    """Read a tokenizer: `tokenizer.json`, one file of a pair of vocabulary and merges, or a folder that holds either.

    Raises `ImportFailure` if there is none, it is broken, or its number of tokens is not `classes`; with `fewer` it may
    be less.
    """
    vocabulary, merges = _files(path)
    with naming(vocabulary):
        tokenizer = _read_json(vocabulary, classes) if merges is None else _read_pair(vocabulary, merges)
        tokens = 1 + max(tokenizer.get_vocab().values(), default=-1)
        if tokens > classes or (tokens < classes and not fewer):
            raise ImportFailure(f"the tokenizer has {tokens} tokens; the checkpoint has {classes} classes")
    return tokenizer


@dataclass(frozen=True)
class ModelTokens:
    """The tokenizer of a model's folder, and what its files say of special tokens."""

    tokenizer: Tokenizer | None
    unnamed: list[int]  # classes that name no token; none if there is no tokenizer
    bos: int | None = None
    pad: int | None = None
    mask: int | None = None
    ends: tuple[int, ...] = ()  # tokens that end a text
    extras: Mapping[str, str] = field(default_factory=dict)  # files for the bundle: the chat template

    def config(self, ends: Sequence[int]) -> dict[str, Any]:
        """The keys of a bundle's configuration that name special tokens."""
        end = ends[0] if len(ends) == 1 else [*ends] or None
        return {"end_token_id": end, "bos_token_id": self.bos, "pad_token_id": self.pad}


def read_model_tokens(
    folder: Path, given: Path | None, classes: int, end_tokens: tuple[str, ...] = ("</s>",)
) -> ModelTokens:
    """Read the tokenizer of a model's folder, or another that is given; tokens may be fewer than classes.

    Args:
        folder: the model's folder.
        given: the tokenizer to read instead; its folder may have a `tokenizer_config.json` too.
        classes: rows of the head.
        end_tokens: names of tokens that end a text, besides the `eos_token`; those that there are count.

    Raises:
        ImportFailure: a file is broken, or there are more tokens than classes.
    """
    place = folder if given is None else given if given.is_dir() else given.parent
    if given is None and not any((folder / name).is_file() for name in (TOKENIZER_FILE, *PAIRS)):
        return ModelTokens(None, [], extras=_chat_template(folder))
    tokenizer = read_tokenizer(given or folder, classes, fewer=True)
    vocabulary = tokenizer.get_vocab()
    known = set(vocabulary.values())

    def named(role: str) -> int | None:
        """The id of a special token: a string, or an object with its content."""
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            if (place / name).is_file():
                with naming(place / name):
                    config = Literals.of_file(place / name)
                value = config.value(f"{role}_token.content") or config.value(f"{role}_token")
                if isinstance(value, str) and value in vocabulary:
                    return vocabulary[value]
        return None

    eos, mask = named("eos"), named("mask")
    ends = [*([] if eos is None else [eos]), *(vocabulary[name] for name in end_tokens if name in vocabulary)]
    return ModelTokens(
        tokenizer,
        unnamed=[each for each in range(classes) if each not in known],
        bos=named("bos"),
        pad=named("pad"),
        mask=vocabulary.get("<|mask|>") if mask is None else mask,
        ends=tuple(dict.fromkeys(ends)),
        extras=_chat_template(place),
    )


def _chat_template(folder: Path) -> dict[str, str]:
    """The chat template as a file for the bundle: of `chat_template.jinja`, or of the tokenizer's configuration."""
    template: object = None
    if (folder / CHAT_TEMPLATE_FILE).is_file():
        with naming(folder / CHAT_TEMPLATE_FILE):
            template = (folder / CHAT_TEMPLATE_FILE).read_bytes().decode(errors="replace")
    elif (folder / "tokenizer_config.json").is_file():
        with naming(folder / "tokenizer_config.json"):
            template = Literals.of_file(folder / "tokenizer_config.json").value("chat_template")
    if isinstance(template, list):  # several, by name
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    return {CHAT_TEMPLATE_FILE: template} if isinstance(template, str) else {}


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
    """A byte-level BPE from its two files: GPT-2's, or Qwen2's where a configuration beside them says so."""
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
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    config = vocabulary.with_name("tokenizer_config.json")
    if config.is_file() and _is_qwen(config):
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN_PIECES), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        _add_tokens(tokenizer, vocabulary.with_name("added_tokens.json"), config)
        return tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if GPT2_END in ids:
        tokenizer.add_special_tokens([AddedToken(GPT2_END, special=True, normalized=False)])
    return tokenizer


def _is_qwen(config: Path) -> bool:
    with naming(config):
        kind = Literals.of_file(config).value("tokenizer_class")
    return isinstance(kind, str) and kind.startswith(QWEN_CLASSES)


def _add_tokens(tokenizer: Tokenizer, file: Path, config: Path) -> None:
    """Add the tokens of `added_tokens.json`; which of them are special, and how they match, the configuration says."""
    flags = Literals.of_file(config).value("added_tokens_decoder")
    flags = flags if isinstance(flags, dict) else {}
    added: dict[str, int] = {}
    if file.is_file():
        with naming(file):
            content = _json(file)
            if not isinstance(content, dict) or not all(type(each) is int for each in content.values()):
                raise ImportFailure("is not a list of added tokens: token → id")
            added = content
    else:
        added = {each["content"]: int(i) for i, each in flags.items() if isinstance(each, dict) and "content" in each}
    for token, number in sorted(added.items(), key=lambda pair: pair[1]):
        said = flags.get(str(number))
        how = {key: value for key, value in said.items() if type(value) is bool} if isinstance(said, dict) else {}
        special = how.pop("special", True)
        known = {key: how.get(key, False) for key in ("lstrip", "rstrip", "single_word", "normalized")}
        tokenizer.add_tokens([AddedToken(token, special=special, **known)])
        if tokenizer.token_to_id(token) != number:
            raise ImportFailure(
                f"{file.name} gives {printable(token)!r} the id {number}; after the tokens before it, it would be "
                f"{tokenizer.token_to_id(token)}"
            )
