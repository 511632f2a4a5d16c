"""Real prose: what is taken from Standard Ebooks' XHTML (a few sentences of a book in the public domain)."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner
from unmask_model_store import open_bundle

from training.__main__ import app
from training.books import CHAPTER_END, read_books, token_ids, train_tokenizer

EBOOK = Path(__file__).parent / "ebook"
CHAPTERS = f"""She was awakened by a shock, so sudden and severe...
{CHAPTER_END}
Dorothy lived in the midst of the great Kansas prairies, with Uncle Henry, who was a farmer, and Aunt Em, who was \
the farmer's wife.
There was no garret at all, and no cellar--except a small hole dug in the ground, called a cyclone cellar.
"My lady fair, Why do you stare?"
{CHAPTER_END}"""


def test_chapters_come_in_the_order_of_the_spine_without_titles_notes_or_typography() -> None:
    assert read_books(EBOOK) == [CHAPTERS]


def test_a_folder_may_mix_plain_text_and_repositories(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Plain text.\n")
    (tmp_path / "b").symlink_to(EBOOK)
    assert read_books(tmp_path) == ["Plain text.", CHAPTERS]


def test_a_folder_without_books_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no books"):
        read_books(tmp_path)
    result = CliRunner().invoke(app, ["books", "--books", str(tmp_path)])
    assert result.exit_code == 2


def test_a_broken_page_is_named(tmp_path: Path) -> None:
    text = tmp_path / "src" / "epub" / "text"
    text.mkdir(parents=True)
    (text.parent / "content.opf").write_text((EBOOK / "src/epub/content.opf").read_text())
    (text / "titlepage.xhtml").write_text("<html>")
    with pytest.raises(ValueError, match=r"titlepage\.xhtml"):
        read_books(tmp_path)


def test_the_tokenizer_has_as_many_classes_as_asked_and_gives_every_text_back() -> None:
    tokenizer = train_tokenizer([CHAPTERS], 289)
    ids = token_ids(tokenizer, [CHAPTERS])
    assert ids.dtype == torch.int32
    assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == CHAPTERS
    assert ids.tolist().count(tokenizer.token_to_id(CHAPTER_END)) == 2
    with pytest.raises(ValueError, match="give only"):
        train_tokenizer(["too short"], 4096)


def test_one_command_trains_on_books(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text("\n".join(f"The {i}th wizard of Oz was wise." for i in range(3000)))
    numbers = ("vocabulary_size=324", "base=18", "hidden_size=32", "blocks=1", "heads=2", "batch_tokens=512")
    changes = [f"--set={number}" for number in numbers]
    out = tmp_path / "run"
    result = CliRunner().invoke(
        app, ["books", "--books", str(tmp_path / "books"), "--out", str(out), "--steps=3", "--samples=1", *changes]
    )
    assert result.exit_code == 0, result.output
    assert open_bundle(out / "bundle").name == "my-books"
