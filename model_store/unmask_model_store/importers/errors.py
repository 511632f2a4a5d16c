"""The one error of importing, and how text out of an untrusted file is shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unmask_model_store.errors import BundleError


class ImportFailure(BundleError):  # noqa: N818 - it is a failure to import a checkpoint, not Python's ImportError
    """A checkpoint cannot be imported; the message says on one line which file and what is wrong with it.

    Attributes:
        named: whether the message begins with the file's name already.
    """

    def __init__(self, message: str, named: bool = False) -> None:
        super().__init__(message)
        self.named = named


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Put the file's name before the message of every failure inside that does not name its file; so with `OSError`."""
    try:
        yield
    except ImportFailure as error:
        if error.named:
            raise
        raise ImportFailure(f"{file}: {error}", named=True) from error
    except OSError as error:
        raise ImportFailure(f"{file}: cannot be read: {error.strerror or printable(error)}", named=True) from error


def printable(text: object, limit: int = 100) -> str:
    """Text out of a file that nobody vouches for: no control characters, no line breaks, not endless."""
    kept = "".join(c if c.isprintable() else "?" for c in str(text)[: limit + 1])
    return kept if len(kept) <= limit else kept[:limit] + "…"
