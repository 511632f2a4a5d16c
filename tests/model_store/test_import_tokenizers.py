"""Tokenizers from the files that people have, held to the checkpoint's classes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer
from unmask_model_store import open_bundle
from unmask_model_store.importers import ImportFailure, Request, cached_gpt2, import_checkpoint, read_tokenizer

from tests.helpers import END_TOKEN, byte_tokenizer
from tests.model_store.bad_checkpoints import written
from tests.model_store.official_format import Sizes

TEXT = "the théory of the thing\n\nthat 北京 breathes"
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the")]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return byte_tokenizer(MERGES)


def write_pair(folder: Path, tokenizer: Tokenizer, vocabulary: str, merges: str) -> None:
    """As GPT-2's two files are: the end token is part of the vocabulary."""
    ids = {("<|endoftext|>" if token == END_TOKEN else token): i for token, i in tokenizer.get_vocab().items()}
    (folder / vocabulary).write_text(json.dumps(ids), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in MERGES), ""]
    (folder / merges).write_text("\n".join(lines), encoding="utf-8")


def same(found: Tokenizer, expected: Tokenizer) -> None:
    ids = expected.encode(TEXT).ids
    assert found.encode(TEXT).ids == ids
    assert found.decode(ids) == TEXT
    assert found.get_vocab_size() == expected.get_vocab_size()


@pytest.mark.parametrize("given_as", ["file", "folder", "another name"])
def test_tokenizer_json(tmp_path: Path, tokenizer: Tokenizer, given_as: str) -> None:
    file = tmp_path / ("mine.json" if given_as == "another name" else "tokenizer.json")
    tokenizer.save(str(file))
    same(read_tokenizer(tmp_path if given_as == "folder" else file, 260), tokenizer)


@pytest.mark.parametrize(("vocabulary", "merges"), [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_gpt2s_pair_of_files(tmp_path: Path, tokenizer: Tokenizer, vocabulary: str, merges: str) -> None:
    write_pair(tmp_path, tokenizer, vocabulary, merges)
    for path in (tmp_path, tmp_path / vocabulary, tmp_path / merges):
        found = read_tokenizer(path, 260)
        same(found, tokenizer)
        assert found.encode("the<|endoftext|>the").ids == [*found.encode("the").ids, 259, *found.encode("the").ids]


def test_a_folder_in_transformers_format(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """`tokenizer.json` wins over the pair beside it; a token added beyond the classes is dropped."""
    write_pair(tmp_path, tokenizer, "vocab.json", "merges.txt")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "[PAD]"}')
    larger = byte_tokenizer(MERGES)
    larger.add_special_tokens([AddedToken("[PAD]", special=True)])
    assert larger.get_vocab_size() == 261
    larger.save(str(tmp_path / "tokenizer.json"))
    found = read_tokenizer(tmp_path, 260)
    same(found, tokenizer)
    assert found.token_to_id(END_TOKEN) == 259
    assert read_tokenizer(tmp_path, 261).token_to_id("[PAD]") == 260


@pytest.mark.parametrize("classes", [100, 261, 50257])
def test_another_number_of_tokens(tmp_path: Path, tokenizer: Tokenizer, classes: int) -> None:
    (tmp_path / "json").mkdir()
    tokenizer.save(str(tmp_path / "json" / "tokenizer.json"))
    (tmp_path / "pair").mkdir()
    write_pair(tmp_path / "pair", tokenizer, "vocab.json", "merges.txt")
    for folder in (tmp_path / "pair", tmp_path / "json"):
        with pytest.raises(ImportFailure, match=rf"\d+ tokens; the checkpoint has {classes} classes"):
            read_tokenizer(folder, classes)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "tokenizer.json").write_text(""),
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        lambda folder: (folder / "tokenizer.json").write_text('{"model": 3}'),
        lambda folder: (folder / "tokenizer.json").write_text('{"model": 3, "added_tokens": "none"}'),
        lambda folder: (folder / "tokenizer.json").write_text("[" * 100_000),
        lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "vocab.json").write_text("{}"),
        lambda folder: (folder / "vocab.json").write_text('{"a": 0}'),
        lambda folder: (folder / "merges.txt").write_text("a b\n"),
        lambda folder: ((folder / "vocab.json").write_text('{"a": "b"}'), (folder / "merges.txt").write_text("")),
        lambda folder: ((folder / "vocab.json").write_text("[]"), (folder / "merges.txt").write_text("")),
        lambda folder: ((folder / "vocab.json").write_text('{"a": 0}'), (folder / "merges.txt").write_text("a b c\n")),
        lambda folder: ((folder / "vocab.json").write_text('{"a": 0}'), (folder / "merges.txt").write_text("x y\n")),
        lambda folder: ((folder / "vocab.json").write_text('{"a": 0}'), (folder / "merges.txt").write_bytes(b"\xff")),
        lambda folder: (folder / "README.md").write_text("no tokenizer here"),
    ],
)
def test_tokenizers_that_are_none(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    spoil(folder)
    file = written(tmp_path)
    with pytest.raises(ImportFailure) as caught:
        import_checkpoint(Request(file, tmp_path / "bundle", tokenizer=folder))
    message = str(caught.value)
    assert message.startswith(str(folder)), message
    assert message.isprintable(), message
    assert not (tmp_path / "bundle").exists()


def test_a_tokenizer_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImportFailure, match="nowhere: there is no such tokenizer"):
        read_tokenizer(tmp_path / "nowhere", 260)


def test_it_comes_into_the_bundle(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    sizes = Sizes(classes=260, sub_tokens=2, length=4, hidden=8, blocks=1, heads=2, condition=3)
    file = written(tmp_path, sizes=sizes)
    result = import_checkpoint(Request(file, tmp_path / "bundle", tokenizer=tmp_path / "tokenizer.json"))
    assert result.has_tokenizer
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.tokenizer is not None
    same(bundle.tokenizer, tokenizer)
    assert bundle.end_token_ids == ()  # official models begin every text with theirs


def test_gpt2s_is_found_in_the_hubs_cache(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, snapshot: Callable[[str], Path]
) -> None:
    monkeypatch.setattr("unmask_model_store.importers.checkpoint.GPT2_CLASSES", 260)
    assert cached_gpt2() is None
    sizes = Sizes(classes=260, sub_tokens=2, length=4, hidden=8, blocks=1, heads=2, condition=3)
    file = written(tmp_path, sizes=sizes)
    assert not import_checkpoint(Request(file, tmp_path / "without")).has_tokenizer
    folder = snapshot("gpt2")
    write_pair(folder, tokenizer, "vocab.json", "merges.txt")
    assert cached_gpt2() == folder / "vocab.json"
    tokenizer.save(str(folder / "tokenizer.json"))
    assert cached_gpt2() == folder / "tokenizer.json"
    assert import_checkpoint(Request(file, tmp_path / "with")).has_tokenizer
