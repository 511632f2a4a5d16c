"""The literal values of an OmegaConf configuration that nobody resolved.

OmegaConf pickles a tree of nodes: containers keep their children in `_content`, leaves their value in `_val`. Both are
in the recorded states, so the values are there for the taking. Interpolations (`${…}`), one of which runs Python in the
official configuration, are strings like any other and stay unresolved.
"""

from collections.abc import Mapping
from typing import Any

from unmask_model_store.importers.errors import ImportFailure, printable
from unmask_model_store.importers.records import Recorded

_ABSENT = object()


def entries(value: object) -> Mapping[Any, Any] | None:
    """A mapping's entries: of a dict, of a recorded DictConfig, or of a recorded subclass of dict; else None."""
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
    """Typed look-up of literal values by dotted path."""

    def __init__(self, root: object) -> None:
        self._root = root

    def has(self, path: str) -> bool:
        """Whether there is such a key."""
        return self._find(path) is not _ABSENT

    def integer(self, path: str, least: int = 1, most: int = 2**31 - 1) -> int:
        """A whole number."""
        value = self._literal(path)
        if type(value) is not int or not least <= value <= most:
            raise ImportFailure(f"its configuration's {path} is {_shown(value)}, not a whole number ≥ {least}")
        return value

    def boolean(self, path: str) -> bool:
        """True or False."""
        value = self._literal(path)
        if not isinstance(value, bool):
            raise ImportFailure(f"its configuration's {path} is {_shown(value)}, neither true nor false")
        return value

    def string(self, path: str) -> str:
        """A string."""
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
        node = self._root
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
