"""Real prose for a second model: Standard Ebooks' XHTML, or plain text, as one long line of token ids.

A folder of books holds `*.txt` files (paragraphs a line, chapters separated by a line `<|eot|>`) and Standard Ebooks
production repositories (folders with `src/epub/content.opf`), in any mixture.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

CHAPTER_END = "<|eot|>"
XHTML = "{http://www.w3.org/1999/xhtml}"
OPF = "{http://www.idpf.org/2007/opf}"
EPUB_TYPE = "{http://www.idpf.org/2007/ops}type"
# what stands outside the running text although it is written in <p>
ASIDES = {XHTML + name for name in ("hgroup", "header", "footer", "table", "nav")}
PLAIN = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "—": "--",
        "–": "-",
        "‑": "-",
        "…": "...",
        "\u2060": "",
        "\ufeff": "",
        "\u00ad": "",
        "\u00a0": " ",
        "\u200a": " ",
        "\u202f": " ",
    }
)


def read_books(folder: Path) -> list[str]:
    """Read every book of a folder: one text each, a paragraph a line, chapters ended by `<|eot|>`.

    Raises:
        ValueError: there is no book, or a repository's XML is broken.
    """
    texts = [path.read_text(encoding="utf-8").strip() for path in sorted(folder.glob("*.txt"))]
    packages = sorted({*folder.glob("src/epub/content.opf"), *folder.glob("*/src/epub/content.opf")})
    texts += ["\n".join(chapter + f"\n{CHAPTER_END}" for chapter in _chapters(package)) for package in packages]
    if not texts:
        raise ValueError(f"{folder} holds no books: neither *.txt nor folders with src/epub/content.opf")
    return texts


def _chapters(package: Path) -> Iterator[str]:
    """The chapters of a Standard Ebooks repository in the order of its spine, title pages and the like left out."""
    for reference in _parse(package).iter(f"{OPF}itemref"):
        page = _parse(package.parent / "text" / reference.get("idref", ""))
        body = page.find(f"{XHTML}body")
        if body is not None and "bodymatter" in body.get(EPUB_TYPE, ""):
            text = "\n".join(paragraphs(body))
            if text:
                yield text


def _parse(file: Path) -> ET.Element:
    try:
        return ET.fromstring(file.read_bytes())  # noqa: S314 — books that the user chose; expat refuses entity bombs
    except (OSError, ET.ParseError) as error:
        raise ValueError(f"{file}: {error}") from error


def paragraphs(element: ET.Element) -> Iterator[str]:
    """The text of every `<p>` below an element, in order, in plain punctuation; headings and tables left out."""
    for child in element:
        if child.tag == f"{XHTML}p":
            text = " ".join("".join(_text(child)).translate(PLAIN).split())
            if text:
                yield text
        elif child.tag not in ASIDES:
            yield from paragraphs(child)


def _text(element: ET.Element) -> Iterator[str]:
    """The text inside an element; a line break is a space, a note's number nothing."""
    yield element.text or ""
    for child in element:
        if child.tag == f"{XHTML}br":
            yield " "
        elif "noteref" not in child.get(EPUB_TYPE, ""):
            yield from _text(child)
        yield child.tail or ""


def train_tokenizer(texts: list[str], vocabulary_size: int) -> Tokenizer:
    """Learn a byte-level BPE of exactly `vocabulary_size` classes; `<|eot|>` is one of them.

    Raises:
        ValueError: the texts are too short for so many.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[CHAPTER_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocabulary_size:
        raise ValueError(f"the books give only {tokenizer.get_vocab_size()} classes, not {vocabulary_size}")
    return tokenizer


def token_ids(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """All texts as one line of ids, int32."""
    return torch.tensor([i for text in texts for i in tokenizer.encode(text).ids], dtype=torch.int32)
