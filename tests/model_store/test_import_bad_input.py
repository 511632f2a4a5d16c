"""Checkpoints that cannot be served end in one clear line, and payloads in none of them run."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from unmask_model_store import open_bundle
from unmask_model_store.importers import Request, import_checkpoint

from tests.model_store.bad_checkpoints import Content, config_of, refused, shadows, written
from tests.model_store.official_format import Sizes
from tests.model_store.test_import_golden import to_hugging_face

# --- tensors ---------------------------------------------------------------------------------------------------------


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


def test_folders_whose_weights_are_sharded(tmp_path: Path) -> None:
    folder = to_hugging_face("D", tmp_path / "hf")
    (folder / "model.safetensors.index.json").write_text("{}")
    import_checkpoint(Request(folder, tmp_path / "bundle"))  # the index says nothing where the whole file is
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    refused(folder, "sharded", "model.safetensors.index.json")


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
