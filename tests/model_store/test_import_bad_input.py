"""Whatever a file holds, an import ends in a bundle or in one clear line, and leaves nothing half-written."""

import io
import json
import os
import pickle
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
from safetensors.torch import save_file
from unmask_model_store import BundleError, open_bundle
from unmask_model_store.importers import ImportFailure, Request, import_checkpoint

from benchmarks import official_format
from benchmarks.official_format import Sizes
from tests.model_store.test_import_golden import to_hugging_face

TINY = Sizes(classes=20, sub_tokens=2, length=4, hidden=8, blocks=1, heads=2, condition=3)
Content = dict[str, Any]


def written(folder: Path, edit: Callable[[Content], object] = lambda _: None, sizes: Sizes = TINY) -> Path:
    """A checkpoint with something changed."""
    content = official_format.checkpoint(sizes)
    edit(content)
    official_format.save(content, folder / "some.ckpt")
    return folder / "some.ckpt"


def refused(file: Path, *needles: str, **options: Any) -> None:  # noqa: ANN401 — keywords of Request
    """The import must fail on one line that names the file and these, and leave nothing behind."""
    place = file.parent / "place"
    place.mkdir(exist_ok=True)
    with pytest.raises(ImportFailure) as caught:
        import_checkpoint(Request(file, place / "bundle", **options))
    message = str(caught.value)
    assert message.startswith(str(file)), message
    assert message.count(str(file)) == 1, message
    assert message.isprintable(), message
    missing = [needle for needle in needles if needle not in message]
    assert not missing, f"{missing} not in {message!r}"
    assert list(place.iterdir()) == []


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


def test_zip_bombs(tmp_path: Path) -> None:
    file = rewritten(written(tmp_path), lambda _: None, compression=zipfile.ZIP_DEFLATED)
    refused(file, "compressed")


def test_a_pickle_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask_model_store.importers.archive.LARGEST_PICKLE", 1000)
    refused(written(tmp_path), "1,000")


def test_too_many_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask_model_store.importers.archive.MOST_RECORDS", 10)
    refused(written(tmp_path), "records")


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


# --- tensors ---------------------------------------------------------------------------------------------------------


def shadows(content: Content) -> list[Any]:
    found: list[Any] = content["ema"]["shadow_params"]
    return found


def set_shadow(content: Content, i: int, tensor: object) -> None:
    shadows(content)[i] = tensor


def set_weight(content: Content, name: str, tensor: object) -> None:
    """In both sets of weights."""
    names = [n for n in content["state_dict"] if "inv_freq" not in n]
    shadows(content)[names.index(f"backbone.{name}")] = tensor
    content["state_dict"][f"backbone.{name}"] = tensor


def drop_weight(content: Content, name: str) -> None:
    names = [n for n in content["state_dict"] if "inv_freq" not in n]
    del shadows(content)[names.index(f"backbone.{name}")]
    del content["state_dict"][f"backbone.{name}"]


def add_weight(content: Content, name: str) -> None:
    content["state_dict"][name] = torch.zeros(2)
    shadows(content).append(torch.zeros(2))


@pytest.mark.parametrize(
    ("edit", "needles"),
    [
        (lambda c: c.pop("ema"), ["no EMA", "--weights raw"]),
        (lambda c: c.update(ema=None), ["no EMA"]),
        (lambda c: c["ema"].pop("shadow_params"), ["no EMA"]),
        (lambda c: c["ema"].update(shadow_params=[]), ["no EMA"]),
        (lambda c: shadows(c).pop(), ["EMA", "19", "20"]),
        (lambda c: shadows(c).append(torch.zeros(1)), ["EMA", "21", "20"]),
        (lambda c: shadows(c).insert(5, c["state_dict"]["backbone.rotary_emb.inv_freq"]), ["EMA", "21", "20"]),
        (lambda c: set_shadow(c, 3, torch.zeros(4, 4)), ["shadow_params[3]", "[4, 4]", "[3, 3]"]),
        (lambda c: set_shadow(c, 3, "a string"), ["shadow_params[3]", "not a plain tensor"]),
        (lambda c: drop_weight(c, "blocks.0.norm2.weight"), ["blocks.0.norm2.weight", "missing"]),
        (lambda c: drop_weight(c, "vocab_embed.embedding"), ["vocab_embed.embedding"]),
        (lambda c: add_weight(c, "backbone.extra.weight"), ["backbone.extra.weight"]),
        (lambda c: set_weight(c, "vocab_embed.embedding", torch.zeros(7, 4)), ["[7, 4]", "[6, 4]"]),
        (lambda c: set_weight(c, "output_layer.linear.weight", torch.zeros(21, 8)), ["[21, 8]", "[20, 8]"]),
        (lambda c: set_weight(c, "sigma_map.mlp.0.weight", torch.zeros(3)), ["sigma_map.mlp.0.weight", "[3]"]),
        (lambda c: set_weight(c, "sigma_map.mlp.0.bias", torch.zeros(())), ["sigma_map.mlp.0.bias", "[]"]),
        (lambda c: set_weight(c, "sigma_map.mlp.0.bias", torch.zeros(3).long()), ["sigma_map.mlp.0.bias", "int64"]),
        (lambda c: shadows(c)[0].fill_(torch.nan), ["vocab_embed.embedding", "NaN"]),
        (lambda c: shadows(c)[-1][3].fill_(torch.inf), ["output_layer.adaLN_modulation.bias", "infinity"]),
        (lambda c: shadows(c)[5][2].fill_(torch.nan), ["blocks.0.norm1.weight", "NaN"]),
        (lambda c: shadows(c)[5].fill_(3e38), ["blocks.0.norm1.weight", "overflows"]),
        (lambda c: c["state_dict"].update({"backbone.x": "text"}), ["backbone.x", "not a plain tensor"]),
        (lambda c: c["state_dict"]["backbone.rotary_emb.inv_freq"].mul_(0.5), ["inv_freq"]),
    ],
)
def test_weights_that_are_wrong(tmp_path: Path, edit: Callable[[Content], object], needles: list[str]) -> None:
    refused(written(tmp_path, edit), *needles)


def test_raw_weights_need_no_ema(tmp_path: Path) -> None:
    import_checkpoint(Request(written(tmp_path, lambda c: c.pop("ema")), tmp_path / "bundle", weights="raw"))


def test_what_is_not_kept_may_be_nan(tmp_path: Path) -> None:
    file = written(tmp_path, lambda c: c["state_dict"]["backbone.vocab_embed.embedding"].fill_(torch.nan))
    import_checkpoint(Request(file, tmp_path / "bundle"))
    refused(file, "NaN", weights="raw")


def test_the_column_of_mdlms_mask_may_be_anything_finite(tmp_path: Path) -> None:
    sizes = Sizes(classes=9, sub_tokens=1, length=4, hidden=8, blocks=1, heads=2, condition=3)
    file = written(tmp_path, lambda c: shadows(c)[-3][-1].fill_(1e30), sizes)
    import_checkpoint(Request(file, tmp_path / "bundle"))
    assert open_bundle(tmp_path / "bundle").config.vocabulary_size == 9


# --- configurations --------------------------------------------------------------------------------------------------


def config_of(content: Content) -> Content:
    found: Content = content["hyper_parameters"]["config"]
    return found


@pytest.mark.parametrize(
    ("edit", "needles"),
    [
        (lambda c: c.pop("hyper_parameters"), ["no configuration"]),
        (lambda c: c["hyper_parameters"].pop("config"), ["no configuration"]),
        (lambda c: c["hyper_parameters"].update(config="none"), ["backbone"]),
        (lambda c: config_of(c).update(time_conditioning=True), ["time-conditioned"]),
        (lambda c: config_of(c).update(time_conditioning="no"), ["time_conditioning", "'no'"]),
        (lambda c: config_of(c).pop("time_conditioning"), ["time_conditioning"]),
        (lambda c: config_of(c).update(parameterization="d3pm"), ["parameterization", "d3pm", "subs"]),
        (lambda c: config_of(c).update(backbone="dimamba"), ["backbone", "dimamba"]),
        (lambda c: config_of(c)["prime"].update(base="${eval:1}"), ["prime.base", "${eval:1}", "interpolation"]),
        (lambda c: config_of(c)["prime"].update(base=0), ["prime.base", "0"]),
        (lambda c: config_of(c)["prime"].update(base=True), ["prime.base", "True"]),
        (lambda c: config_of(c)["prime"].update(base=10**5000), ["prime.base", "huge"]),
        (lambda c: config_of(c)["prime"].update(base=None), ["prime.base", "None"]),
        (lambda c: config_of(c)["prime"].update(base=4), ["vocab_embed.embedding", "[6, 4]", "[5, 4]"]),
        (lambda c: config_of(c)["prime"].pop("base"), ["prime.base"]),
        (lambda c: config_of(c)["prime"].update(vocab_size=21), ["output_layer", "[20, 8]", "[21, 8]"]),
        (lambda c: config_of(c)["prime"].update(target_length=3), ["hidden_size 8", "l = 3"]),
        (lambda c: config_of(c)["prime"].update(target_length=10**9), ["hidden_size"]),
        (lambda c: config_of(c)["prime"].update(seq_length=5), ["seq_length", "5", "4"]),
        (lambda c: config_of(c)["prime"].update(carry_over="yes"), ["carry_over", "'yes'"]),
        (lambda c: config_of(c)["model"].update(n_heads=3), ["heads"]),
        (lambda c: config_of(c)["model"].update(n_blocks=2), ["blocks.1.norm1.weight", "missing"]),
        (lambda c: config_of(c)["model"].update(n_blocks=10**9), ["1000000000 blocks"]),
        (lambda c: config_of(c)["model"].update(hidden_size=16), ["[6, 4]", "[6, 8]"]),
        (lambda c: config_of(c)["model"].update(hidden_size=8.0), ["hidden_size", "8.0"]),
        (lambda c: config_of(c)["model"].update(cond_dim=4), ["sigma_map.mlp.0.weight", "[3, 256]", "[4, 256]"]),
        (
            lambda c: [config_of(c)[k].update({n: 10**8}) for k, n in (("model", "length"), ("prime", "seq_length"))],
            ["length"],
        ),
        (lambda c: config_of(c).pop("prime"), ["vocab_embed.embedding"]),
        (
            lambda c: (config_of(c).pop("prime"), config_of(c)["data"].update(tokenizer_name_or_path="bert")),
            ["tokenizer"],
        ),
        (lambda c: config_of(c).update(model="small\x1b[2J\n"), ["model.length"]),
        (lambda c: config_of(c).update(backbone="\x1b[2J\nevil"), ["backbone"]),
    ],
)
def test_configurations_that_cannot_be(tmp_path: Path, edit: Callable[[Content], object], needles: list[str]) -> None:
    refused(written(tmp_path, edit), *needles)


def test_image_models(tmp_path: Path) -> None:
    torch.save({"model": {"conv.weight": torch.zeros(1)}, "optimizer": {}, "epoch": 1, "args": {}}, tmp_path / "i.pth")
    refused(tmp_path / "i.pth", "image models")


def test_other_checkpoints(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "some.pt")
    refused(tmp_path / "some.pt", "state_dict", "weights")
    torch.save({"state_dict": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.pt")
    refused(tmp_path / "other.pt", "not an MDM-Prime or MDLM text model")


# --- payloads --------------------------------------------------------------------------------------------------------


class Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize(
    "place",
    [
        lambda c, p: c.update(payload=p),
        lambda c, p: c["hyper_parameters"].update(tokenizer=p),
        lambda c, p: c["optimizer_states"].append(p),
        lambda c, p: config_of(c).update(payload=p),
        lambda c, p: c.update(epoch=p),
    ],
)
def test_payloads_are_left_out(tmp_path: Path, place: Callable[[Content, Payload], object]) -> None:
    file = written(tmp_path, lambda c: place(c, Payload(tmp_path / "trace")))
    result = import_checkpoint(Request(file, tmp_path / "bundle"))
    assert result.ignored == (f"{os.system.__module__}.system",)
    assert f"{os.system.__module__}.system" in (tmp_path / "bundle" / "README.md").read_text()
    assert not (tmp_path / "trace").exists()
    pickle.loads(pickle.dumps(Payload(tmp_path / "trace")))  # noqa: S301 — the payload does work
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("place", "needle"),
    [
        (lambda c, p: c.update(state_dict=p), "state_dict"),
        (lambda c, p: c["state_dict"].update({"backbone.vocab_embed.embedding": p}), "not a plain tensor"),
        (lambda c, p: shadows(c).__setitem__(0, p), "not a plain tensor"),
        (lambda c, p: c["hyper_parameters"].update(config=p), "configuration"),
        (lambda c, p: config_of(c)["prime"].update(base=p), "posix.system"),
        (lambda c, p: c.update(ema=p), "no EMA"),
    ],
)
def test_payloads_in_the_place_of_what_is_needed(
    tmp_path: Path, place: Callable[[Content, Payload], object], needle: str
) -> None:
    refused(written(tmp_path, lambda c: place(c, Payload(tmp_path / "trace"))), needle)
    assert not (tmp_path / "trace").exists()


# --- Hugging Face's layout -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "needles"),
    [
        ({"model_type": "bert"}, ["config.json", "'bert'"]),
        ({"time_conditioning": True}, ["config.json", "time-conditioned"]),
        ({"vocab_size": 2}, ["vocab_size"]),
        ({"vocab_size": 100}, ["model.safetensors", "vocab_embed.embedding", "[101, 48]", "[100, 48]"]),
        ({"n_blocks": 3}, ["blocks.2.norm1.weight", "missing"]),
        ({"model_length": "long"}, ["model_length", "'long'"]),
        ({"hidden_dim": None}, ["hidden_dim"]),
    ],
)
def test_folders_whose_configuration_is_wrong(tmp_path: Path, changes: Content, needles: list[str]) -> None:
    folder = to_hugging_face("D", tmp_path / "hf")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    refused(folder, *needles)


def test_folders_whose_files_are_wrong(tmp_path: Path) -> None:
    folder = to_hugging_face("D", tmp_path / "hf")
    refused(folder, "--weights raw", weights="raw")
    weights = (folder / "model.safetensors").read_bytes()
    for broken in (b"", weights[:-1], weights[:100], b"\xff" * 100):
        (folder / "model.safetensors").write_bytes(broken)
        refused(folder, "model.safetensors")
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
    refused(folder, "model.safetensors", "2 blocks")
    for broken in (b"", b"[]", b"3", b"{", b"[" * 100_000):
        (folder / "config.json").write_bytes(broken)
        refused(folder, "config.json")


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
