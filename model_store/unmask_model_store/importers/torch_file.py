"""Files that `torch.save` wrote, read without executing anything in them.

Such a file is a zip archive: one pickle that describes everything, and beside it every tensor storage, uncompressed, as
a record of its own. So a tensor can be read alone, without the two thirds of a checkpoint that are optimizer state.

A pickle is a program, and unpickling calls whatever the program names. Here every name becomes a `Global`, every call a
`Recorded`, and every tensor a `TensorRecord` that says where its bytes are.
"""

import io
import pickle
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeGuard

import torch
from torch import Tensor

from unmask_model_store.config import printable
from unmask_model_store.importers.untrusted import Global, ImportFailure, Recorded

LARGEST_PICKLE = 64 * 2**20
# an official checkpoint's pickle has about 40,000 opcodes; one with GPT-2's slow tokenizer inside about 700,000
MOST_OPCODES = 5_000_000
MOST_RECORDS = 100_000
LARGEST_DIRECTORY = 2**25
MOST_DIMENSIONS = 8
LOCAL_HEADER_BYTES = 30
CHUNK = 2**20

# --- the pickle ------------------------------------------------------------------------------------------------------

STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.storage.UntypedStorage": torch.uint8,
}
DICTS = {"collections.OrderedDict", "collections.defaultdict"}
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
_TYPES = "bool bytearray bytes complex dict float frozenset int list long object set str tuple unicode"
# what a checkpoint is expected to name, besides OmegaConf's nodes; other names are reported
EXPECTED = {*STORAGES, *DICTS, REBUILD_TENSOR, REBUILD_PARAMETER, "typing.Any", "argparse.Namespace"}
EXPECTED |= {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _TYPES.split()}
# opcodes for a registry of the process, and for data outside the pickle: no file needs them
_REFUSED = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}


@dataclass(frozen=True, eq=False, slots=True)
class StorageRecord:
    """A torch storage: the record that holds its bytes, the type and the number of its elements."""

    key: str
    dtype: torch.dtype
    elements: int


@dataclass(frozen=True, eq=False, slots=True)
class TensorRecord:
    """A torch tensor that was not read: a view of a storage. Offset and strides count elements."""

    storage: StorageRecord
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pickle(data: bytes) -> tuple[Any, tuple[str, ...]]:
    """Read a pickle as torch writes it, or raise `ImportFailure`.

    Returns the value — None, numbers, strings, bytes, lists, tuples, dicts, `TensorRecord`, `Global`, `Recorded` — and
    the sorted, printable names of the unexpected globals that it mentions.
    """
    unpickler = _Unpickler(data)
    try:
        with warnings.catch_warnings(action="ignore"):  # about strange escapes in a text pickle
            _check_opcodes(data)
            value = unpickler.load()
    except ImportFailure:
        raise
    except Exception as error:  # a broken pickle ends in many types of error
        raise ImportFailure(f"its pickle cannot be read: {printable(error) or type(error).__name__}") from error
    unexpected = (name for name in unpickler.globals if name not in EXPECTED and not name.startswith("omegaconf."))
    return value, tuple(sorted(map(printable, unexpected)))


def _check_opcodes(data: bytes) -> None:
    """Bound the number of opcodes, and with it the memory of the result; arguments must lie inside the pickle."""
    for count, (opcode, _, _) in enumerate(pickletools.genops(data)):
        if count >= MOST_OPCODES:
            raise ImportFailure(f"its pickle has more than {MOST_OPCODES:,} opcodes")
        if opcode.name in _REFUSED:
            raise ImportFailure(f"its pickle uses the opcode {opcode.name}, which no checkpoint needs")


class _Dict(dict[Any, Any]):
    """A dict whose keys hash at once: a nested tuple, which could take forever or overflow the stack, is replaced."""

    def __setitem__(self, key: object, value: object) -> None:
        scalars = (str, int, float, bytes, bool, type(None), Global, Recorded)
        flat = isinstance(key, tuple) and len(key) < 9 and all(isinstance(part, scalars) for part in key)
        super().__setitem__(key if flat or isinstance(key, scalars) else Recorded("a nested key", ()), value)


class _Unpickler(pickle._Unpickler):
    """Python's unpickler, with every opcode replaced that calls, hashes or changes what a file names.

    It is the implementation in Python: the one in C hashes nested keys until its stack overflows, and allocates memory
    for whatever memo index the file names.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    append: Callable[[object], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), fix_imports=False, encoding="latin-1")
        self.globals: dict[str, Global] = {}

    def find_class(self, module: str, name: str) -> Global:
        full_name = f"{module[:200]}.{name[:200]}"
        return self.globals.setdefault(full_name, Global(full_name))

    def persistent_load(self, identity: object) -> object:
        """("storage", type, key, location, number of elements) → a storage."""
        if isinstance(identity, tuple) and len(identity) == 5 and identity[0] == "storage":
            _, kind, key, _, elements = identity
            if isinstance(kind, Global) and kind.name in STORAGES and isinstance(key, str) and _is_size(elements):
                return StorageRecord(key, STORAGES[kind.name], elements)
        return Recorded("a persistent id", identity)

    def _reduce(self) -> None:  # REDUCE, NEWOBJ
        args = self.stack.pop()
        self.stack[-1] = _construct(self.stack[-1], args)

    def _new_object_with_keywords(self) -> None:
        self.stack.pop()
        self._reduce()

    def _instantiate(self, function: object, args: Sequence[object]) -> None:  # INST, OBJ
        self.append(_construct(function, tuple(args)))

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(target := self.stack[-1], Recorded):
            target.state = state  # on anything else, an attribute such as OrderedDict's `_metadata`: of no use

    def _dict_of_marked(self) -> None:
        made, flat = _Dict(), self.pop_mark()
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            made[key] = value
        self.append(made)

    def _frozenset(self) -> None:
        items = self.pop_mark()
        self.append(Recorded("builtins.frozenset", items))

    dispatch |= {
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        pickle.NEWOBJ_EX[0]: _new_object_with_keywords,
        pickle.BUILD[0]: _build,
        pickle.EMPTY_DICT[0]: lambda self: self.append(_Dict()),
        pickle.DICT[0]: _dict_of_marked,
        pickle.EMPTY_SET[0]: lambda self: self.append(Recorded("builtins.set", ())),
        pickle.FROZENSET[0]: _frozenset,
    }


def _construct(function: object, args: object) -> object:
    """What a call gives: a tensor, a parameter or a dict, else a record of the call."""
    if not isinstance(function, Global):
        return Recorded(f"a call of {type(function).__name__}", args)
    if isinstance(args, tuple):
        if function.name == REBUILD_TENSOR and (tensor := _tensor(args)):
            return tensor
        if function.name == REBUILD_PARAMETER and args:
            return args[0]
        if function.name in DICTS and not any(isinstance(each, list | dict) for each in args):
            return _Dict()
    return Recorded(function.name, args)


def _tensor(args: tuple[object, ...]) -> TensorRecord | None:
    """`_rebuild_tensor_v2(storage, offset, shape, strides, …)` as a record; None if that is not what torch writes."""
    if len(args) < 4:
        return None
    storage, offset, shape, strides = args[:4]
    if isinstance(storage, StorageRecord) and _is_size(offset) and _is_sizes(shape) and _is_sizes(strides):
        return TensorRecord(storage, offset, shape, strides) if len(shape) == len(strides) else None
    return None


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**62


def _is_sizes(value: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(value, tuple) and len(value) <= MOST_DIMENSIONS and all(_is_size(size) for size in value)


# --- the zip archive -------------------------------------------------------------------------------------------------

# what zipfile raises about an archive that is not in order
_ZIP_ERRORS = (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, EOFError, MemoryError, RuntimeError)


class TorchFile:
    """An open file: its content, and the tensors in it to read."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._records = _check_records(archive)
        tops = [name.removesuffix("/data.pkl") for name in self._records if name.endswith("/data.pkl")]
        tops = [top for top in tops if "/" not in top]  # torch names its one folder after the file, or `archive`
        if len(tops) != 1:
            raise ImportFailure("is a zip file, but not one that torch.save wrote (no data.pkl)")
        self._folder = tops[0]
        order = self._records.get(f"{self._folder}/byteorder")
        if order is not None and order.file_size < 16 and (found := self._read("byteorder")) != b"little":
            raise ImportFailure(f"its byte order is {printable(found.decode('latin-1'))!r}; only little is read")
        size = self._record("data.pkl").file_size
        if size > LARGEST_PICKLE:
            raise ImportFailure(f"its pickle has {size:,} bytes; at most {LARGEST_PICKLE:,} are read")
        # the value of the pickle, and the names in it that were not expected
        self.content, self.ignored = read_pickle(bytes(self._read("data.pkl")))

    def read_tensor(self, tensor: TensorRecord) -> Tensor:
        """Read one tensor; raise `ImportFailure` if it is not inside its storage or the checksum is wrong."""
        storage, size = tensor.storage, tensor.storage.dtype.itemsize
        name = f"data/{storage.key}"
        record = self._record(name)
        if record.file_size != storage.elements * size:
            raise ImportFailure(
                f"record {printable(name)} has {record.file_size} bytes; its storage needs {storage.elements * size}"
            )
        span = _span(tensor.shape, tensor.strides)
        if tensor.offset + span > storage.elements or prod(tensor.shape) > storage.elements:
            shape = printable(list(tensor.shape), 60)
            raise ImportFailure(f"a tensor of shape {shape} reaches beyond record {printable(name)}")
        if span == 0:
            return torch.empty(tensor.shape, dtype=storage.dtype)
        data = self._read(name, tensor.offset * size, span * size)
        return torch.frombuffer(data, dtype=storage.dtype).as_strided(tensor.shape, tensor.strides)

    def _record(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._records[f"{self._folder}/{name}"]
        except KeyError:
            raise ImportFailure(f"record {printable(name)} is missing") from None

    def _read(self, name: str, start: int = 0, size: int | None = None) -> bytearray:
        """Read bytes of a record. zipfile checks the checksum where a record is read as a whole."""
        entry = self._record(name)
        data, size = bytearray(), entry.file_size if size is None else size
        try:
            with self._archive.open(entry) as record:
                record.seek(start)
                while len(data) < size and (chunk := record.read(min(CHUNK, size - len(data)))):
                    data += chunk
        except _ZIP_ERRORS as error:
            what = "its checksum is wrong" if "CRC" in str(error) else printable(error)
            raise ImportFailure(f"record {printable(name)} is damaged: {what}") from error
        if len(data) < size:
            raise ImportFailure(f"the file ends in the middle of record {printable(name)}")
        return data


@contextmanager
def open_torch_file(file: Path) -> Iterator[TorchFile]:
    """Open a file; its tensors can be read as long as it is open. Raises `ImportFailure`, or `OSError`."""
    with file.open("rb") as stream, _open_archive(stream) as archive:
        yield TorchFile(archive)


@contextmanager
def open_torch_part(file: Path, offset: int, length: int) -> Iterator[TorchFile]:
    """Open a part of a file that is itself a file as `torch.save` writes it, read as a whole."""
    with file.open("rb") as stream:
        stream.seek(offset)
        data = stream.read(length)
    if len(data) < length:
        raise ImportFailure(f"ends within the {length:,} bytes from {offset:,} on")
    with _open_archive(io.BytesIO(data)) as archive:
        yield TorchFile(archive)


def _open_archive(stream: BinaryIO) -> zipfile.ZipFile:
    head = stream.read(64)
    if not head.startswith(b"PK\x03\x04"):
        raise ImportFailure(_describe(head))
    try:
        end = zipfile._EndRecData(stream)  # type: ignore[attr-defined]  # ZipFile would make an object per record
        if end and end[5] > LARGEST_DIRECTORY:
            raise ImportFailure(f"its directory has {end[5]:,} bytes; at most {LARGEST_DIRECTORY:,} are read")
        return zipfile.ZipFile(stream)
    except ImportFailure:
        raise
    except _ZIP_ERRORS as error:
        raise ImportFailure(f"is cut off or not a zip file: {printable(error)}") from error


def _describe(head: bytes) -> str:
    """Describe a file that does not begin as a zip archive does."""
    if not head:
        return "is empty"
    if head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "is a bare pickle (torch's format before 1.6): save it again with a newer torch"
    if head.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the checkpoint itself: run `git lfs pull`"
    return "is not a torch checkpoint"


def _check_records(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's records by name; each must be stored uncompressed, inside the file, and apart from the others."""
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    if len(entries) > MOST_RECORDS:
        raise ImportFailure(f"has {len(entries):,} records; at most {MOST_RECORDS:,} are read")
    records: dict[str, zipfile.ZipInfo] = {}
    next_starts = [*(entry.header_offset for entry in entries[1:]), archive.start_dir]
    for entry, next_start in zip(entries, next_starts, strict=True):
        name = printable(entry.filename)
        if entry.orig_filename in records:
            raise ImportFailure(f"record {name} is there twice")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
            raise ImportFailure(f"record {name} is compressed or encrypted; torch stores records uncompressed")
        header = LOCAL_HEADER_BYTES + len(entry.orig_filename)  # at least: an extra field may follow
        if entry.header_offset < 0 or entry.header_offset + header + entry.file_size > next_start:
            raise ImportFailure(f"record {name} reaches into another one or beyond the file's end")
        records[entry.orig_filename] = entry
    return records


def _span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Number of elements from a tensor's first to its last."""
    if prod(shape) == 0:
        return 0
    return 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
