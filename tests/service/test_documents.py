"""The documents: every relative link leads somewhere, the index lists all of them, and named core files exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
DOCUMENTS = sorted(
    path
    for folder in (".", "docs", "docs/figures", "kernels/unmask_kernels", "model_store/bundles/tales", "training")
    for path in (REPOSITORY / folder).glob("*.md")
)


def links(document: Path) -> Iterator[tuple[Path, str]]:
    """The relative links of a document: the file, and the heading in it or "" for the whole file."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if not re.match(r"[a-z]+:", target):
            path, _, heading = target.partition("#")
            yield (document.parent / path if path else document), heading


def prose(document: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document: Path) -> None:
    for path, heading in links(document):
        assert path.exists(), path
        assert not heading or heading in anchors(path), f"{path.name}#{heading}"


def test_the_index_lists_every_document() -> None:
    listed = {path.resolve() for path, _ in links(DOCS / "README.md")}
    assert {path for path in DOCS.glob("*.md") if path.name != "README.md"} <= listed


def test_files_to_read_are_there() -> None:
    _, *rooms = re.split(
        r"^\*\*.*?\*\* \(`(.*?)`\)$", (DOCS / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    named = [
        REPOSITORY / room / name
        for room, table in zip(rooms[::2], rooms[1::2], strict=True)
        for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(.*?)`", row)
    ]
    assert len(named) > 30
    assert [path for path in named if not path.exists()] == []
