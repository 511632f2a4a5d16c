"""torch's zip format: where a checkpoint's records lie, checked before anything is believed.

`torch.save` stores every storage uncompressed as a record of its own, beside one pickle that describes them. So a
tensor can be read alone, without the two thirds of the file that are optimizer state.
"""

import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from unmask_model_store.importers.errors import ImportFailure, printable
from unmask_model_store.importers.records import TensorRecord

LARGEST_PICKLE = 64 * 2**20
MOST_RECORDS = 100_000

_LOCAL_HEADER = struct.Struct("<4s22xHH")


@dataclass(frozen=True)
class Record:
    """Where a record's bytes lie in the file, and their CRC-32."""

    start: int
    size: int
    checksum: int


class TorchArchive:
    """A checkpoint's file, open for reading single tensors."""

    def __init__(self, file: Path) -> None:
        """Open and check.

        Raises:
            ImportFailure: it is not torch's zip format, is cut off, or its records cannot be true.
            OSError: it cannot be read.
        """
        self._file = _open(file)
        try:
            self._records = _read_records(self._file)
            self._folder = _folder_of_pickle(self._records)
            self._check_byte_order()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def pickle(self) -> bytes:
        """The pickle that describes everything."""
        record = self._record("data.pkl")
        if record.size > LARGEST_PICKLE:
            raise ImportFailure(f"its pickle has {record.size:,} bytes; {LARGEST_PICKLE:,} are the most that is read")
        return bytes(self._read("data.pkl", record.start, record.size))

    def read_tensor(self, tensor: TensorRecord) -> Tensor:
        """Read one tensor's bytes, after checking that the tensor lies in its storage and the storage in its record.

        Raises:
            ImportFailure: it does not, or the bytes' checksum does not fit.
        """
        storage, size = tensor.storage, tensor.storage.dtype.itemsize
        name = f"data/{storage.key}"
        record = self._record(name)
        if record.size != storage.elements * size:
            raise ImportFailure(
                f"record {printable(name)} has {record.size} bytes; its storage needs {storage.elements * size}"
            )
        span = _span(tensor.shape, tensor.strides)
        if tensor.offset + span > storage.elements or prod(tensor.shape) > storage.elements:
            raise ImportFailure(f"a tensor of shape {_short(tensor.shape)} reaches beyond record {printable(name)}")
        if span == 0:
            return torch.empty(tensor.shape, dtype=storage.dtype)
        data = self._read(name, record.start + tensor.offset * size, span * size)
        return torch.frombuffer(data, dtype=storage.dtype).as_strided(tensor.shape, tensor.strides)

    def _record(self, name: str) -> Record:
        try:
            return self._records[f"{self._folder}/{name}"]
        except KeyError:
            raise ImportFailure(f"record {printable(name)} is missing") from None

    def _read(self, name: str, start: int, size: int) -> bytearray:
        data = bytearray(size)
        self._file.seek(start)
        if self._file.readinto(data) != size:
            raise ImportFailure(f"the file ends in the middle of record {printable(name)}")
        record = self._record(name)
        if (start, size) == (record.start, record.size) and zlib.crc32(data) != record.checksum:
            raise ImportFailure(f"record {printable(name)} is damaged: its checksum does not fit")
        return data

    def _check_byte_order(self) -> None:
        record = self._records.get(f"{self._folder}/byteorder")
        if record is not None and record.size < 16:
            order = bytes(self._read("byteorder", record.start, record.size))
            if order != b"little":
                raise ImportFailure(f"its byte order is {printable(order.decode('latin-1'))!r}; only little is read")


def _short(shape: Sequence[int]) -> str:
    return printable(list(shape), 60)


def _span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from a tensor's first to its last, both counted."""
    if prod(shape) == 0:
        return 0
    return 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))


def _open(file: Path) -> BufferedReader:
    stream = file.open("rb")
    head = stream.read(64)
    if not head.startswith(b"PK\x03\x04"):
        stream.close()
        raise ImportFailure(_what_else(head))
    return stream


def _what_else(head: bytes) -> str:
    if not head:
        return "is empty"
    if head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "is a bare pickle (torch's format before 1.6): save it again with a newer torch"
    if head.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the checkpoint itself: run `git lfs pull`"
    return "is not a torch checkpoint"


def _read_records(stream: BufferedReader) -> dict[str, Record]:
    """The zip's directory as name → record, each checked to be stored plainly inside the file and on its own."""
    try:
        with zipfile.ZipFile(stream) as archive:
            entries, end = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, EOFError, MemoryError) as error:
        raise ImportFailure(f"is cut off or not a zip file: {printable(error)}") from error
    if len(entries) > MOST_RECORDS:
        raise ImportFailure(f"has {len(entries):,} records; {MOST_RECORDS:,} are the most that is read")
    records: dict[str, Record] = {}
    last = 0
    for entry in sorted(entries, key=lambda each: each.header_offset):
        if entry.orig_filename in records:
            raise ImportFailure(f"record {printable(entry.filename)} is there twice")
        record = _read_record(stream, entry, last, end)
        records[entry.orig_filename] = record
        last = record.start + record.size
    return records


def _read_record(stream: BufferedReader, entry: zipfile.ZipInfo, last: int, end: int) -> Record:
    """A record that must be stored plainly and lie between the one before it and the directory."""
    name = printable(entry.filename)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
        raise ImportFailure(f"record {name} is compressed or encrypted; torch stores records plainly")
    inside = last <= entry.header_offset < end
    start = _data_start(stream, entry, name) if inside else end
    if not inside or start + entry.file_size > end:
        raise ImportFailure(f"record {name} reaches into another one or beyond the file's end")
    return Record(start, entry.file_size, entry.CRC)


def _data_start(stream: BufferedReader, entry: zipfile.ZipInfo, name: str) -> int:
    stream.seek(entry.header_offset)
    header = stream.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size:
        raise ImportFailure(f"record {name} reaches beyond the file's end")
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    if magic != b"PK\x03\x04":
        raise ImportFailure(f"record {name} is not where the directory says")
    return entry.header_offset + _LOCAL_HEADER.size + int(name_length) + int(extra_length)


def _folder_of_pickle(records: dict[str, Record]) -> str:
    """The one top folder of torch's records, called after the file or `archive`."""
    folders = [
        name.removesuffix("/data.pkl") for name in records if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    if len(folders) != 1:
        raise ImportFailure("is a zip file, but not one that torch.save wrote (no data.pkl)")
    return folders[0]
