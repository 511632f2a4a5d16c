"""Imported llama-shaped checkpoints against the official codes' own numbers (tests/golden)."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from unmask_diffusion import LlamaDenoiser, LlamaShape, sample
from unmask_kernels import consistent_log_softmax
from unmask_model_store import Bundle, LlamaConfig, open_bundle
from unmask_model_store.importers import Request, import_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 3e-5
TABLE = GOLDEN / "tiny_V_perm_512.pt"
# what no file says
OPTIONS: dict[str, dict[str, Any]] = {
    "V": {"heads": 4, "sub_tokens": 9, "base": 2, "codes": TABLE, "length": 32},
    "S": {"heads": 4, "length": 32},
    "G": {"mask_id": 329},
}
FILES = {
    "V": "tiny_V.pth",
    "S": "tiny_S.safetensors",
    "M": "tiny_M_iter_0000005",
    "L": "tiny_L",
    "R": "tiny_R",
    "G": "tiny_G",
}
NAMES = tuple(FILES)


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"tiny_{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def imported(name: str, folder: Path, file: Path | None = None) -> Bundle:
    import_checkpoint(Request(file or GOLDEN / FILES[name], folder / name, **OPTIONS.get(name, {})))
    return open_bundle(folder / name)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("imported")
    return {name: imported(name, folder) for name in NAMES}


def network(bundle: Bundle) -> LlamaDenoiser:
    assert isinstance(bundle.denoiser, LlamaDenoiser)
    return bundle.denoiser


def error_of(denoiser: LlamaDenoiser, name: str) -> float:
    """The largest difference between logits and the official ones: what stands for each position."""
    arrays = golden(name)
    expected = arrays.get("logits_shifted", arrays["logits"])[..., : denoiser.vocabulary_size]
    return float((denoiser.joint_logits(arrays["y"]) - expected).abs().max())


def rebuilt(
    bundle: Bundle,
    change: Callable[[dict[str, Tensor]], object] = lambda _: None,
    **keys: Any,  # noqa: ANN401 — the fields of LlamaShape
) -> LlamaDenoiser:
    """The bundle's network with other switches or weights."""
    assert isinstance(bundle.config, LlamaConfig)
    made = LlamaDenoiser(dataclasses.replace(bundle.config.shape, **keys), bundle.config.undrawable)
    weights = dict(network(bundle).state_dict())
    change(weights)
    made.load_state_dict(weights, assign=True, strict=False)
    return made.requires_grad_(False).eval().serve_in(torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_official_ones(bundles: dict[str, Bundle], name: str) -> None:
    assert error_of(network(bundles[name]), name) < TOLERANCE


@pytest.mark.parametrize("name", ["V", "M"])
def test_codes_are_the_official_ones(bundles: dict[str, Bundle], name: str) -> None:
    assert torch.equal(bundles[name].sub_tokenizer.codes, golden(name)["codes"])


@pytest.mark.parametrize("name", ["V", "M", "S"])
def test_log_probabilities_are_the_official_ones(bundles: dict[str, Bundle], name: str) -> None:
    bundle, arrays = bundles[name], golden(name)
    logits = bundle.denoiser.joint_logits(arrays["y"]).flatten(0, 1)
    found = consistent_log_softmax(logits, arrays["y"].flatten(0, 1), bundle.sub_tokenizer.codes)
    expected = arrays["log_probs_carry"].flatten(0, 1)
    assert torch.equal(found == -torch.inf, expected == -torch.inf)
    finite = expected > -torch.inf
    assert float((found[finite] - expected[finite]).abs().max()) < TOLERANCE


@pytest.mark.parametrize("name", ["L", "R", "G"])
def test_classes_without_a_token_are_never_drawn(bundles: dict[str, Bundle], name: str) -> None:
    bundle, arrays = bundles[name], golden(name)
    unnamed = arrays["classes_without_token"].tolist()
    assert isinstance(bundle.config, LlamaConfig)
    assert bundle.config.undrawable == (unnamed if bundle.tokenizer else [329])
    made = rebuilt(bundle)
    made.barred = torch.zeros(made.vocabulary_size).index_fill(0, torch.tensor(unnamed), -torch.inf)
    rows = [torch.arange(arrays["y"].shape[1])] * 2
    features = made.trunk(list(arrays["y"][2:4]), rows)
    found = made.head(features).log_softmax(-1).unflatten(0, (2, -1))
    expected = arrays["log_probs"]
    assert torch.equal(found == -torch.inf, expected == -torch.inf)
    finite = expected > -torch.inf
    assert float((found[finite] - expected[finite]).abs().max()) < TOLERANCE
    drawn = {token for one in sample(bundle, max_tokens=12, n=8, seed=1, temperature=100.0) for token in one.token_ids}
    assert len(drawn) > 50
    assert not drawn & set(bundle.config.undrawable)


@pytest.mark.parametrize("name", ["V", "M", "R", "L"])
def test_short_canvases_are_evaluated_as_long_as_they_are(bundles: dict[str, Bundle], name: str) -> None:
    arrays, bundle = golden(name), bundles[name]
    mask = bundle.sub_tokenizer.mask_id
    if "y_short" in arrays:
        y = arrays["y_short"]
    else:
        ids = arrays["input_ids_short"]
        y = torch.where(ids == arrays["mask_token_id"], mask, ids)[..., None]
    expected = arrays.get("logits_short_shifted", arrays["logits_short"])[..., : bundle.config.vocabulary_size]
    assert float((bundle.denoiser.joint_logits(y) - expected).abs().max()) < TOLERANCE


def test_both_of_megatrons_formats_are_the_same_model(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    other = imported("M", tmp_path, GOLDEN / "tiny_M_model_optim_rng.pt")
    assert other.config.codes == bundles["M"].config.codes
    ours, theirs = (network(bundle).state_dict() for bundle in (bundles["M"], other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_training_checkpoints_are_read_too(tmp_path: Path) -> None:
    """With the sub-tokens of a token that training noted."""
    content = torch.load(GOLDEN / "tiny_V.pth", weights_only=True)
    file = tmp_path / "iter-000030-ckpt.pth"
    state = {"model": content["model"], "optimizer": {"state": {0: torch.ones(3)}}, "hparams": {"chunk_size": 9}}
    torch.save({**state, "iter_num": 30, "step_count": 30}, file)
    import_checkpoint(Request(file, tmp_path / "V", heads=4, codes=TABLE))
    assert error_of(network(open_bundle(tmp_path / "V")), "V") < TOLERANCE


def test_weights_in_bfloat16_stay_so_and_serve_in_both(bundles: dict[str, Bundle]) -> None:
    folder = bundles["R"].path
    small = open_bundle(folder, dtype="bfloat16")
    assert {str(each.dtype) for each in network(small).parameters()} == {"torch.float32", "torch.bfloat16"}
    assert (folder / "model.safetensors").stat().st_size < 1.1 * (GOLDEN / "tiny_R/model.safetensors").stat().st_size
    found = error_of(network(small), "R")
    assert TOLERANCE < found < 0.3


@pytest.mark.parametrize("name", ["L", "R"])
def test_texts_have_the_official_ids(bundles: dict[str, Bundle], name: str) -> None:
    tokenizer = bundles[name].tokenizer
    assert tokenizer is not None
    content = json.loads((GOLDEN / f"tiny_{name}.json").read_text())
    for each in (*content["texts"], *content["chats"]):
        assert tokenizer.encode(each["text"], add_special_tokens=False).ids == each["ids"], each["text"]


def test_what_the_files_say_of_special_tokens_is_in_the_bundle(bundles: dict[str, Bundle]) -> None:
    ends = {name: bundles[name].end_token_ids for name in ("L", "R", "G", "V")}
    assert ends == {"L": (301, 324), "R": (300, 302), "G": (302,), "V": ()}
    assert (bundles["R"].config.bos_token_id, bundles["R"].config.add_bos) == (322, "empty_prompt")  # not the config's
    assert (bundles["L"].config.bos_token_id, bundles["L"].config.add_bos) == (300, "never")
    assert (bundles["R"].config.pad_token_id, bundles["L"].config.pad_token_id) == (300, 301)
    template = json.loads((GOLDEN / "tiny_R/tokenizer_config.json").read_text())["chat_template"]
    assert (bundles["R"].path / "chat_template.jinja").read_text() == template


def test_flags_follow_the_family(bundles: dict[str, Bundle]) -> None:
    carried = {name: bundle.config.carry_over for name, bundle in bundles.items()}
    assert carried == {"V": False, "S": True, "M": False, "L": True, "R": True, "G": True}
    assert {bundle.config.canvas for bundle in bundles.values()} == {"as_requested"}
    assert bundles["R"].config.length == 2048  # what it was trained on, not max_position_embeddings


# --- typical mistakes would be seen ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("V", {"norm_epsilon": 1e-6}),
        ("V", {"rotary_tables": "float32"}),
        ("M", {"norm_epsilon": 1e-6}),
        ("M", {"rotary_tables": "bfloat16"}),
        ("M", {"query_key_norm": False}),
        ("L", {"norm_epsilon": 1e-6}),
        ("L", {"rotary_base": 1e6}),
        ("L", {"rotary_tables": "bfloat16"}),
        ("L", {"mask_class": 383}),
        ("R", {"norm_epsilon": 1e-5}),
        ("R", {"rotary_base": 5e5}),
        ("R", {"query_key_value_bias": False}),
        ("R", {"shifted": False}),
        ("R", {"mask_class": 300}),
        ("G", {"norm_epsilon": 1e-5}),
        ("G", {"query_key_norm": False}),
        ("G", {"mask_class": 383}),
    ],
    ids=str,
)
def test_another_switch_would_be_seen(bundles: dict[str, Bundle], name: str, keys: dict[str, Any]) -> None:
    assert error_of(rebuilt(bundles[name]), name) < TOLERANCE
    assert error_of(rebuilt(bundles[name], **keys), name) > TOLERANCE


def swapped(weights: dict[str, Tensor]) -> None:
    for name in [name for name in weights if name.endswith("mlp_in.weight")]:
        weights[name] = torch.cat(weights[name].chunk(2)[::-1])


def without_keys_bias(weights: dict[str, Tensor]) -> None:
    for name in [name for name in weights if name.endswith("attn_qkv.bias")]:
        weights[name] = weights[name].clone()
        weights[name][64:96] = 0


def with_tied_head(weights: dict[str, Tensor]) -> None:
    weights["output.weight"] = weights["embedding.weight"][: len(weights["output.weight"])]


@pytest.mark.parametrize(
    ("name", "change"),
    [*((name, swapped) for name in NAMES), ("R", without_keys_bias), ("L", with_tied_head), ("R", with_tied_head)],
)
def test_other_weights_would_be_seen(
    bundles: dict[str, Bundle], name: str, change: Callable[[dict[str, Tensor]], None]
) -> None:
    assert error_of(rebuilt(bundles[name], change), name) > 0.1


def test_heads_in_another_grouping_would_be_seen(tmp_path: Path) -> None:
    import_checkpoint(Request(GOLDEN / "tiny_V.pth", tmp_path / "V", **OPTIONS["V"] | {"heads": 2}))
    assert error_of(network(open_bundle(tmp_path / "V")), "V") > 0.1


# --- a row's bits do not depend on the batch --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["V", "M", "R", "G"])
def test_bits_do_not_depend_on_the_company(bundles: dict[str, Bundle], name: str, dtype: str) -> None:
    made = network(open_bundle(bundles[name].path, dtype=dtype))
    y = golden(name)["y"]
    canvases = [y[2], y[3][:7], y[4], y[5][:19], y[2][:1], y[0][:5]]
    rows = [torch.arange(len(canvas)) for canvas in canvases]
    together = made.trunk(canvases, rows).split([len(each) for each in rows])
    for canvas, every, found in zip(canvases, rows, together, strict=True):
        assert torch.equal(made.trunk([canvas], [every]), found)
        some = every[len(every) // 2 :: 3]
        if len(some) and len(canvas) <= 32:
            part = made.trunk([y[3], canvas], [torch.tensor([1]), some])[1:]
            assert torch.equal(part, found[some])


def test_sizes_that_do_not_fit_are_refused() -> None:
    good: dict[str, Any] = dataclasses.asdict(LlamaShape(8, 10, 1, 10, 8, 1, 2, 1, 4, 16))
    for bad in ({"key_value_heads": 3}, {"head_width": 3}, {"tied_head": True}, {"mask_class": 10}, {"mask_class": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            LlamaShape(**good | bad)
    with pytest.raises(ValueError, match="hidden_size 8 is not divisible by l = 3"):
        LlamaShape(**good | {"sub_tokens_per_token": 3, "base": 3})
    shape = LlamaShape(**good | {"query_key_norm": True, "query_key_value_bias": True})
    assert shape.parameters == sum(each.numel() for each in LlamaDenoiser(shape).parameters())
