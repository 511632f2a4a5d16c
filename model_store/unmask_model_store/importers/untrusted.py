"""Values out of an untrusted file, and the error that says what is wrong with it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unmask_model_store.config import BundleError, printable

_ABSENT = object()


class ImportFailure(BundleError):  # noqa: N818 - it is a failure to import a checkpoint, not Python's ImportError
    """A checkpoint cannot be imported; the message says on one line which file and what is wrong with it."""

    def __init__(self, message: str, named: bool = False) -> None:
        super().__init__(message)
        self.named = named  # whether the message begins with the file's name already


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Put the file's name before the message of every failure inside that names no file; also of an `OSError`."""
    try:
        yield
    except ImportFailure as error:
        if error.named:
            raise
        raise ImportFailure(f"{file}: {error}", named=True) from error
    except OSError as error:
        raise ImportFailure(f"{file}: cannot be read: {error.strerror or printable(error)}", named=True) from error


@dataclass(frozen=True, eq=False, slots=True)
class Global:
    """A class or function that a pickle names. It is neither looked up nor imported."""

    name: str


@dataclass(eq=False, repr=False, slots=True)  # a repr could be endless
class Recorded:
    """An object that a pickle describes and that is not made: the description is kept."""

    name: str  # of the class or function to call
    args: Any  # what to call it with
    state: Any = None  # what to give to `__setstate__` or `__dict__`
    items: list[Any] = field(default_factory=list)  # what to append, to add, or to set as (key, value) pairs

    def append(self, item: object) -> None:
        self.items.append(item)

    add = append

    def __setitem__(self, key: object, value: object) -> None:
        self.items.append((key, value))


def entries(value: object) -> Mapping[Any, Any] | None:
    """The entries of a dict, of a recorded OmegaConf container, or of a recorded subclass of dict; else None."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Recorded):
        if isinstance(value.state, dict) and isinstance(value.state.get("_content"), dict):
            content: Mapping[Any, Any] = value.state["_content"]
            return content
        if value.items:
            pairs = (item for item in value.items if isinstance(item, tuple) and len(item) == 2)
            return {key: child for key, child in pairs if isinstance(key, str)}
    return None


class Literals:
    """Typed look-up in a configuration by dotted path: a dict out of JSON, or an OmegaConf tree out of a pickle.

    OmegaConf pickles containers with their children in `_content` and leaves with their value in `_val`.
    Interpolations (`${…}`), one of which runs Python in the official configuration, are never resolved.
    """

    def __init__(self, root: object) -> None:
        self.root = root

    @classmethod
    def of_file(cls, file: Path) -> "Literals":
        """The content of a JSON file. Raises `ImportFailure`: it is not JSON."""
        try:
            return cls(json.loads(file.read_bytes()))
        except (ValueError, RecursionError) as error:
            raise ImportFailure("is not valid JSON") from error

    def has(self, path: str) -> bool:
        return self._find(path) is not _ABSENT

    def given(self, path: str) -> bool:
        """Whether there is a value, other than null."""
        return self.value(path) is not None

    def value(self, path: str) -> object:
        """Any value; None where it is null or absent."""
        found = self._find(path)
        return None if found is _ABSENT else found

    def strings(self, path: str) -> list[str]:
        value = self._literal(path)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ImportFailure(f"its configuration's {path} is {_shown(value)}, not a list of strings")
        return value

    def ids(self, path: str) -> list[int]:
        """A token id, or a list of them; none where it is null or absent."""
        value = self.value(path)
        found: list[Any] = [] if value is None else value if isinstance(value, list) else [value]
        if not all(type(each) is int and 0 <= each < 2**31 for each in found):
            raise ImportFailure(f"its configuration's {path} is {_shown(value)}, not a token id or a list of them")
        return found

    def integer(self, path: str, least: int = 1, most: int = 2**31 - 1) -> int:
        value = self._literal(path)
        if type(value) is not int or not least <= value <= most:
            raise ImportFailure(f"its configuration's {path} is {_shown(value)}, not a whole number ≥ {least}")
        return value

    def number(self, path: str) -> float:
        value = self._literal(path)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 2**63:
            raise ImportFailure(f"its configuration's {path} is {_shown(value)}, not a number")
        return value

    def boolean(self, path: str) -> bool:
        value = self._literal(path)
        if not isinstance(value, bool):
            raise ImportFailure(f"its configuration's {path} is {_shown(value)}, neither true nor false")
        return value

    def string(self, path: str) -> str:
        value = self._literal(path)
        if not isinstance(value, str):
            raise ImportFailure(f"its configuration's {path} is {_shown(value)}, not a string")
        return value

    def _literal(self, path: str) -> object:
        value = self._find(path)
        if value is _ABSENT:
            raise ImportFailure(f"its configuration has no {path}")
        if isinstance(value, str) and "${" in value:
            raise ImportFailure(f"its configuration's {path} is {_shown(value)}; interpolations are not resolved")
        return value

    def _find(self, path: str) -> object:
        node = self.root
        for key in path.split("."):
            children = entries(node)
            if children is None or key not in children:
                return _ABSENT
            node = children[key]
        if isinstance(node, Recorded) and isinstance(node.state, dict):
            return node.state.get("_val", node)
        return node


def _shown(value: object) -> str:
    if isinstance(value, Recorded):
        return f"a {printable(value.name)}"
    if type(value) is int and abs(value) > 2**63:
        return "a huge number"
    plain = isinstance(value, str | int | float | bool | type(None))
    return printable(repr(value), 60) if plain else f"a {type(value).__name__}"
