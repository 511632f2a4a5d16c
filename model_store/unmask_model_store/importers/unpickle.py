"""Reading a pickle without executing any of it.

A pickle is a program for a stack machine, and Python's machine calls whatever the program names. This one calls
nothing: containers are built, torch's tensors become descriptions of where their bytes lie, and every other global —
class or function alike — becomes a `Recorded` that remembers what it was given. `pickletools.genops` splits the bytes
into opcodes and checks their arguments; each opcode then has a few lines below.
"""

import pickletools
import warnings
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from unmask_model_store.importers.errors import ImportFailure, printable
from unmask_model_store.importers.records import (
    EMPTY_DICTS,
    EXPECTED,
    REBUILD_PARAMETER,
    REBUILD_TENSOR,
    SETS,
    STORAGES,
    Global,
    Recorded,
    StorageRecord,
    TensorRecord,
)

# an official checkpoint's pickle has about 40,000 opcodes; one with GPT-2's slow tokenizer inside about 700,000
MOST_OPCODES = 10_000_000
MOST_DIMENSIONS = 8


def read_pickle(data: bytes) -> tuple[Any, tuple[str, ...]]:
    """Read a pickle as torch writes it.

    Returns:
        The value — None, numbers, strings, bytes, containers, `TensorRecord`, `Global`, `Recorded` — and the names of
        the unexpected globals that it mentions, sorted, fit to be printed.

    Raises:
        ImportFailure: it is no pickle, or one that needs what is not admitted.
    """
    machine = _Machine()
    try:
        with warnings.catch_warnings(action="ignore"):  # of strange escapes in a text pickle
            value = machine.run(data)
    except ImportFailure:
        raise
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
        raise ImportFailure(f"its pickle cannot be read: {printable(error) or type(error).__name__}") from error
    return value, tuple(sorted(printable(name) for name in machine.unexpected))


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _is_sizes(value: object) -> bool:
    return isinstance(value, tuple) and len(value) <= MOST_DIMENSIONS and all(_is_size(size) for size in value)


def _plain_key(key: object) -> Hashable:
    """A key or set element that hashes at once: what is nested is replaced (its hash could take for ever)."""
    scalars = (str, int, float, bytes, bool, type(None), complex)
    if isinstance(key, (*scalars, Global, Recorded)):
        return key
    if isinstance(key, tuple) and len(key) < 9 and all(isinstance(part, scalars) for part in key):
        return key
    return Recorded("a key that is not plain", ())


def _pairs(flat: list[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _call(function: object, args: object) -> object:
    """What REDUCE gives: the few admitted constructions, else a record of the call."""
    if not isinstance(function, Global):
        return Recorded(f"a call of {type(function).__name__}", args)
    name = function.name
    if name == REBUILD_TENSOR:
        return _tensor(args) or Recorded(name, args)
    if name == REBUILD_PARAMETER and isinstance(args, tuple) and args:
        return args[0]
    if name in EMPTY_DICTS and isinstance(args, tuple) and not any(isinstance(a, list | dict) for a in args):
        return {}
    make_set = SETS.get(name)
    if make_set and isinstance(args, tuple) and len(args) == 1 and isinstance(args[0], list):
        return make_set(_plain_key(key) for key in args[0])
    return Recorded(name, args)


def _tensor(args: object) -> TensorRecord | None:
    """`_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`, or None where that does not fit."""
    if not isinstance(args, tuple) or len(args) < 4:
        return None
    storage, offset, shape, strides = args[:4]
    if not (isinstance(storage, StorageRecord) and _is_size(offset)):
        return None
    if not (_is_sizes(shape) and _is_sizes(strides) and len(shape) == len(strides)):
        return None
    return TensorRecord(storage, offset, shape, strides)


def _storage(identity: object) -> StorageRecord | Recorded:
    """A persistent id: ("storage", type, key, location, number of elements)."""
    if isinstance(identity, tuple) and len(identity) == 5 and identity[0] == "storage":
        _, kind, key, _, elements = identity
        if isinstance(kind, Global) and kind.name in STORAGES and isinstance(key, str) and _is_size(elements):
            return StorageRecord(key, STORAGES[kind.name], elements)
    return Recorded("a persistent id", identity)


class _Machine:
    """The stack machine. `stack` is what lies above the innermost mark; `marks` holds the stacks below."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.unexpected: set[str] = set()

    def run(self, data: bytes) -> object:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count >= MOST_OPCODES:
                raise ImportFailure(f"its pickle has more than {MOST_OPCODES:,} opcodes")
            if opcode.name == "STOP":
                break
            step = _STEPS.get(opcode.name)
            if step is None:
                raise ImportFailure(f"its pickle uses the opcode {opcode.name}, which no checkpoint needs")
            step(self, argument)
        if self.marks or len(self.stack) != 1:
            raise ImportFailure("its pickle ends in the middle of a value")
        return self.stack[0]

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        """What lies above the innermost mark, which goes too."""
        above, self.stack = self.stack, self.marks.pop()
        return above

    def pop_some(self, count: int) -> tuple[Any, ...]:
        values = tuple(self.stack[-count:])
        if len(values) < count:
            raise IndexError("the stack is empty")
        del self.stack[-count:]
        return values

    def mark(self, _: object) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop(self, _: object) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def get(self, index: int) -> None:
        self.push(self.memo[index])

    def put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def name(self, full_name: str) -> Global:
        if full_name not in EXPECTED:
            self.unexpected.add(full_name)
        return Global(full_name)

    def stack_global(self, _: object) -> None:
        module, name = self.pop_some(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a global's name is not a string")
        self.push(self.name(f"{module}.{name}"))

    def build(self, _: object) -> None:
        (state,) = self.pop_some(1)
        if isinstance(target := self.stack[-1], Recorded):
            target.state = state  # on anything else, an attribute such as OrderedDict's `_metadata`: of no use

    def set_items(self, flat: list[Any]) -> None:
        target = self.stack[-1]
        pairs = [(_plain_key(key), value) for key, value in _pairs(flat)]
        if isinstance(target, dict):
            target.update(pairs)
        else:
            self._record(target, pairs)

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        else:
            self._record(target, values)

    def add_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(_plain_key(value) for value in values)
        else:
            self._record(target, values)

    def _record(self, target: object, items: list[Any]) -> None:
        if not isinstance(target, Recorded):
            raise TypeError(f"items are added to {type(target).__name__}")
        target.items.extend(items)

    def call(self, function: object, args: object) -> None:
        self.push(_call(function, args))


_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda *_: None),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _Machine.push),
    **dict.fromkeys(("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"), _Machine.push),
    **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _Machine.push),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), _Machine.push),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_SET": lambda m, _: m.push(set()),
    "LIST": lambda m, _: m.push(m.pop_mark()),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: m.push(m.pop_some(1)),
    "TUPLE2": lambda m, _: m.push(m.pop_some(2)),
    "TUPLE3": lambda m, _: m.push(m.pop_some(3)),
    "DICT": lambda m, _: m.push({_plain_key(key): value for key, value in _pairs(m.pop_mark())}),
    "FROZENSET": lambda m, _: m.push(frozenset(_plain_key(value) for value in m.pop_mark())),
    "APPEND": lambda m, _: m.extend(list(m.pop_some(1))),
    "APPENDS": lambda m, _: m.extend(m.pop_mark()),
    "SETITEM": lambda m, _: m.set_items(list(m.pop_some(2))),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "ADDITEMS": lambda m, _: m.add_items(m.pop_mark()),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": lambda m, _: m.pop_mark(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    "GLOBAL": lambda m, argument: m.push(m.name(argument.replace(" ", ".", 1))),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": lambda m, _: m.call(*m.pop_some(2)),
    "NEWOBJ": lambda m, _: m.call(*m.pop_some(2)),
    "NEWOBJ_EX": lambda m, _: m.call(m.pop_some(3)[0], ()),
    "OBJ": lambda m, _: m.call((above := m.pop_mark())[0], tuple(above[1:])),
    "INST": lambda m, argument: m.call(m.name(argument.replace(" ", ".", 1)), tuple(m.pop_mark())),
    "BUILD": _Machine.build,
    "PERSID": lambda m, identity: m.push(_storage(identity)),
    "BINPERSID": lambda m, _: m.push(_storage(m.pop_some(1)[0])),
}
