"""Files that are no checkpoints, zip files that are not what they say, and places that cannot be written to."""

import io
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unmask_model_store import BundleError, open_bundle
from unmask_model_store.importers import ImportFailure, Request, import_checkpoint

from tests.model_store.bad_checkpoints import refused, shadows, written


def test_the_unchanged_one_is_imported(tmp_path: Path) -> None:
    import_checkpoint(Request(written(tmp_path), tmp_path / "bundle"))
    assert open_bundle(tmp_path / "bundle").config.vocabulary_size == 20


# --- files that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "needle"),
    [
        (b"", "empty"),
        (b"\0" * 1000, "not a torch checkpoint"),
        (b"hello", "not a torch checkpoint"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "bare pickle"),
        (b"\x80\x04N.", "bare pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs"),
        (b"PK\x03\x04", "cut off"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, needle: str) -> None:
    (tmp_path / "some.ckpt").write_bytes(content)
    refused(tmp_path / "some.ckpt", needle)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.ckpt", "No such file")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "config.json", "No such file")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("tiny")).read_bytes()


@given(data=st.data())
def test_a_file_that_is_cut_off_anywhere(
    tmp_path_factory: pytest.TempPathFactory, tiny: bytes, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    length = data.draw(st.integers(0, len(tiny) - 1) | st.integers(len(tiny) - 200, len(tiny) - 1))
    (folder / "some.ckpt").write_bytes(tiny[:length])
    refused(folder / "some.ckpt")


@given(seed=st.integers(0, 2**32 - 1))
def test_a_file_that_is_damaged_anywhere(tmp_path_factory: pytest.TempPathFactory, tiny: bytes, seed: int) -> None:
    """A checksum sees what is read; what is not read may be damaged."""
    folder = tmp_path_factory.mktemp("damaged")
    noise, content = random.Random(seed), bytearray(tiny)
    directory = len(tiny) - 5000
    for _ in range(noise.choice((1, 1, 3))):
        content[noise.randrange(noise.choice((0, directory)), len(tiny))] = noise.randrange(256)
    (folder / "some.ckpt").write_bytes(content)
    try:
        import_checkpoint(Request(folder / "some.ckpt", folder / "bundle"))
    except ImportFailure:
        assert not (folder / "bundle").exists()
    else:
        open_bundle(folder / "bundle")


# --- zip files that are not what they say ----------------------------------------------------------------------------


def rewritten(file: Path, change: Callable[[dict[str, bytes]], object], **options: Any) -> Path:  # noqa: ANN401
    """The same records, changed, written by Python's zipfile."""
    with zipfile.ZipFile(file) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    change(records)
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return file


def pickle_name(records: dict[str, bytes]) -> str:
    return next(name for name in records if name.endswith("/data.pkl"))


def test_who_wrote_the_zip_file_does_not_matter(tmp_path: Path) -> None:
    import_checkpoint(Request(rewritten(written(tmp_path), lambda _: None), tmp_path / "bundle"))


def test_records_may_be_in_zip64(tmp_path: Path) -> None:
    """As torch writes checkpoints beyond 4 GiB."""
    file = written(tmp_path)
    with zipfile.ZipFile(file) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in records.items():
            with archive.open(name, "w", force_zip64=True) as record:
                record.write(content)
    import_checkpoint(Request(file, tmp_path / "bundle"))


def test_zip_bombs(tmp_path: Path) -> None:
    file = rewritten(written(tmp_path), lambda _: None, compression=zipfile.ZIP_DEFLATED)
    refused(file, "compressed")


def test_a_pickle_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask_model_store.importers.torch_file.LARGEST_PICKLE", 1000)
    refused(written(tmp_path), "1,000")


def test_too_many_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask_model_store.importers.torch_file.MOST_RECORDS", 10)
    refused(written(tmp_path), "records")


def test_a_directory_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask_model_store.importers.torch_file.LARGEST_DIRECTORY", 1000)
    refused(written(tmp_path), "directory", "1,000")


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        (lambda records: records.pop(pickle_name(records)), "data.pkl"),
        (lambda records: records.update({"other/data.pkl": b"N."}), "data.pkl"),
        (lambda records: records.clear(), ""),
        (lambda records: records.update({pickle_name(records): b"not a pickle"}), "pickle"),
        (lambda records: records.update({pickle_name(records): b"N."}), "dictionary"),
        (lambda records: [records.pop(name) for name in list(records) if "/data/" in name], "is missing"),
        (lambda records: records.update({n: c[:-4] for n, c in records.items() if "/data/" in n}), "bytes"),
        (lambda records: records.update({n: c + b"\0" * 4 for n, c in records.items() if "/data/" in n}), "bytes"),
        (lambda records: records.update({n: b"big" for n in records if n.endswith("byteorder")}), "byte order"),
    ],
)
def test_records_that_are_wrong(tmp_path: Path, change: Callable[[dict[str, bytes]], object], needle: str) -> None:
    refused(rewritten(written(tmp_path), change), needle)


def test_records_that_are_there_twice(tmp_path: Path) -> None:
    file = written(tmp_path)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"N.")
    refused(file, "twice")


def test_records_that_overlap(tmp_path: Path) -> None:
    """Two entries of the directory that share their bytes, as in bombs without compression."""
    file = written(tmp_path)
    content = bytearray(file.read_bytes())
    first = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]  # the local header's offset
    file.write_bytes(content)
    refused(file, "reaches into")


@pytest.mark.parametrize("size", [10**6, 2**32 - 2])
def test_records_that_reach_beyond_the_file(tmp_path: Path, size: int) -> None:
    file = written(tmp_path)
    content = bytearray(file.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = struct.pack("<II", size, size)
    file.write_bytes(content)
    refused(file, "beyond the file's end")


def test_a_weight_that_was_damaged_on_its_way(tmp_path: Path) -> None:
    file = written(tmp_path, lambda c: c["ema"]["shadow_params"][7].fill_(12345.0))
    content = file.read_bytes()
    damaged = content.replace(struct.pack("<f", 12345.0), struct.pack("<f", 12346.0), 1)
    assert damaged != content
    file.write_bytes(damaged)
    refused(file, "checksum")


# --- the place -------------------------------------------------------------------------------------------------------


def test_an_existing_place_is_refused(tmp_path: Path) -> None:
    file, out = written(tmp_path), tmp_path / "bundle"
    import_checkpoint(Request(file, out))
    with pytest.raises(ImportFailure, match="exists already"):
        import_checkpoint(Request(file, out, name="other"))
    assert open_bundle(out).name == "bundle"
    import_checkpoint(Request(file, out, name="other", force=True))
    assert open_bundle(out).name == "other"


def test_force_replaces_only_bundles(tmp_path: Path) -> None:
    file, home = written(tmp_path), tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    for place in (home, home / "letter.txt"):
        with pytest.raises(ImportFailure, match="not a bundle"):
            import_checkpoint(Request(file, place, force=True))
    assert (home / "letter.txt").read_text() == "dear"
    (tmp_path / "empty").mkdir()
    import_checkpoint(Request(file, tmp_path / "empty", force=True))


def test_a_failed_import_keeps_the_bundle_that_is_there(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    import_checkpoint(Request(written(tmp_path), out))
    broken = written(tmp_path, lambda c: shadows(c)[-1].fill_(torch.nan))
    with pytest.raises(ImportFailure, match="NaN"):
        import_checkpoint(Request(broken, out, force=True))
    open_bundle(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "some.ckpt"]


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing fails after 1000 bytes."""
    open_file = io.open

    class Full(io.FileIO):
        def write(self, data: Any) -> int:  # noqa: ANN401
            if self.tell() + memoryview(data).nbytes > 1000:
                raise OSError(28, os.strerror(28))
            return super().write(data)

    def limited(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:  # noqa: ANN401
        return Full(file, "w") if mode == "wb" else open_file(file, mode, *rest, **more)

    monkeypatch.setattr(io, "open", limited)


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(BundleError, match="No space left"):
        import_checkpoint(Request(Path(__file__).parents[1] / "golden" / "tiny_A.ckpt", place / "bundle"))
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("name", ["a name", "", "../elsewhere", "x" * 300])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    refused(written(tmp_path), "name", name=name)
