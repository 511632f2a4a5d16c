"""A sharded index that is wrong in any way is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unmask_model_store.importers import ImportFailure, Request, import_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
FIRST, SECOND = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
TENSOR = "model.transformer.blocks.0.attn_norm.weight"

BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a tensor is not named": (lambda index: index["weight_map"].pop(TENSOR), f"does not name {TENSOR}"),
    "in the other file": (lambda index: index["weight_map"].update({TENSOR: SECOND}), f"which is in {FIRST}"),
    "no such tensor": (lambda index: index["weight_map"].update({"other": FIRST}), "names other, which"),
    "no such file": (lambda index: index["weight_map"].update({TENSOR: "x.safetensors"}), "x.safetensors"),
    "another folder": (lambda index: index["weight_map"].update({TENSOR: "../x.safetensors"}), "beside the index"),
    "another size": (lambda index: index["metadata"].update(total_size=1), "total_size is 1"),
    "no size": (lambda index: index.pop("metadata"), "total_size"),
    "no map": (lambda index: index.pop("weight_map"), "weight_map"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_index_that_is_wrong_is_refused(tmp_path: Path, name: str) -> None:
    change, message = BROKEN[name]
    folder = Path(shutil.copytree(GOLDEN / "tiny_L", tmp_path / "L"))
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    change(index)
    file.write_text(json.dumps(index))
    with pytest.raises(ImportFailure) as failure:
        import_checkpoint(Request(folder, tmp_path / "out"))
    assert message in str(failure.value)
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "tiny_L", tmp_path / "L"))
    file = folder / "model.safetensors.index.json"
    file.write_text(file.read_text().replace('"weight_map": {', f'"weight_map": {{"{TENSOR}": "{SECOND}",'))
    with pytest.raises(ImportFailure, match="twice"):
        import_checkpoint(Request(folder, tmp_path / "out"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("alibi", True), ("rope", False), ("block_type", "sequential"), ("include_bias", True), ("block_group_size", 2)],
)
def test_another_network_is_refused_by_its_key(tmp_path: Path, key: str, value: object) -> None:
    folder = Path(shutil.copytree(GOLDEN / "tiny_L", tmp_path / "L"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ImportFailure, match=key):
        import_checkpoint(Request(folder, tmp_path / "out"))
