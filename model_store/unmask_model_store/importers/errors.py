"""The one error of importing, and how text out of an untrusted file is shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unmask_model_store.bundle import BundleError


class ImportFailure(BundleError):  # noqa: N818 - it is a failure to import a checkpoint, not Python's ImportError
    """A checkpoint cannot be imported; the message says on one line which file and what is wrong with it."""


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Put the file's name before the message of every `ImportFailure` that is raised inside."""
    try:
        yield
    except ImportFailure as error:
        raise ImportFailure(f"{file}: {error}") from error


def printable(text: object, limit: int = 100) -> str:
    """Text out of a file that nobody vouches for: no control characters, no line breaks, not endless."""
    kept = "".join(c if c.isprintable() else "?" for c in str(text)[: limit + 1])
    return kept if len(kept) <= limit else kept[:limit] + "…"
