"""Imported official checkpoints against the official code's own numbers (tests/golden)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from unmask_diffusion import sample
from unmask_kernels import consistent_log_softmax
from unmask_model_store import Bundle, PrimeConfig, open_bundle
from unmask_model_store.importers import Request, import_checkpoint

from tests.model_store import official_format
from tests.model_store.official_format import Sizes, random_weights
from tests.model_store.official_network import official_logits

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 3e-5
NAMES = ("A", "B", "D")


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def imported(which: str, folder: Path, **options: Any) -> Bundle:  # noqa: ANN401 — keywords of Request
    import_checkpoint(Request(GOLDEN / f"tiny_{which}.ckpt", folder / which, **options))
    return open_bundle(folder / which)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("imported")
    return {name: imported(name, folder) for name in NAMES}


def worst(found: Tensor, expected: Tensor) -> float:
    """Largest difference; infinities must agree."""
    assert torch.equal(found == -torch.inf, expected == -torch.inf)
    finite = expected > -torch.inf
    return float((found[finite] - expected[finite]).abs().max())


def error_of(bundle: Bundle, name: str) -> float:
    arrays = golden(f"tiny_{name}")
    classes = bundle.config.vocabulary_size
    return worst(bundle.denoiser.joint_logits(arrays["y"]), arrays["logits"][..., :classes])


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_official_ones(bundles: dict[str, Bundle], name: str) -> None:
    assert error_of(bundles[name], name) < TOLERANCE


@pytest.mark.parametrize("name", ["A", "B"])
def test_carry_over_log_probabilities_are_the_official_ones(bundles: dict[str, Bundle], name: str) -> None:
    bundle, arrays = bundles[name], golden(f"tiny_{name}")
    logits = bundle.denoiser.joint_logits(arrays["y"]).flatten(0, 1)
    codes = bundle.sub_tokenizer.codes
    found = consistent_log_softmax(logits, arrays["y"].flatten(0, 1), codes)
    # the official filter gives NaN where digits name no token; no row here has such digits
    assert worst(found, arrays["log_probs_carry"].flatten(0, 1)) < TOLERANCE
    masked = torch.full_like(arrays["y"], bundle.sub_tokenizer.mask_id).flatten(0, 1)
    unfiltered = consistent_log_softmax(logits, masked, codes)
    assert worst(unfiltered, arrays["log_probs_no_carry"].flatten(0, 1)) < TOLERANCE


def test_mdlm_log_probabilities_are_the_official_ones(bundles: dict[str, Bundle]) -> None:
    """The official ones have -1e6 where ours have -inf, and carry revealed tokens over."""
    bundle, arrays = bundles["D"], golden("tiny_D")
    logits = bundle.denoiser.joint_logits(arrays["y"]).flatten(0, 1)
    found = consistent_log_softmax(logits, arrays["y"].flatten(0, 1), bundle.sub_tokenizer.codes)
    expected = arrays["log_probs_subs"].flatten(0, 1)[:, :100]
    assert worst(found, expected.masked_fill(expected < -1e5, -torch.inf)) < TOLERANCE


def test_the_chain_of_marginals_is_the_official_one(bundles: dict[str, Bundle]) -> None:
    """Reveal one sub-token after another; each one's marginal is that of the filtered joint."""
    bundle, arrays = bundles["A"], golden("tiny_A")
    codes, digits = bundle.sub_tokenizer.codes, bundle.sub_tokenizer.sub_tokens_per_token
    truth = bundle.sub_tokenizer.encode(arrays["chain_x0"])
    canvas = bundle.sub_tokenizer.masked(bundle.config.length)
    for step, sub_token in enumerate(arrays["order"].tolist()):
        position, j = divmod(sub_token, digits)
        logits = bundle.denoiser.joint_logits(canvas[None])[0, position : position + 1]
        joint = consistent_log_softmax(logits, canvas[position : position + 1], codes)[0]
        marginal = joint[codes[:, j] == truth[position, j]].logsumexp(0)
        assert abs(float(marginal) - float(arrays["chain_log_probs"][step])) < TOLERANCE, step
        canvas[position, j] = truth[position, j]


def test_digits_are_the_official_ones(bundles: dict[str, Bundle]) -> None:
    arrays = golden("tiny_A")
    assert torch.equal(bundles["A"].sub_tokenizer.encode(arrays["digit_ids"]), arrays["digit_table"])


# --- typical mistakes would be seen ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_raw_weights_are_others(tmp_path: Path, name: str) -> None:
    bundle, arrays = imported(name, tmp_path, weights="raw"), golden(f"tiny_{name}")
    assert error_of(bundle, name) > 0.1
    raw = arrays["logits_raw_weights"][..., : bundle.config.vocabulary_size]
    assert worst(bundle.denoiser.joint_logits(arrays["y"][:1]), raw) < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_another_epsilon_would_be_seen(tmp_path: Path, name: str) -> None:
    bundle = imported(name, tmp_path)
    assert isinstance(bundle.denoiser, nn.Module)
    for layer in bundle.denoiser.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.eps = 1e-6
    assert error_of(bundle, name) > TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_an_exact_gelu_would_be_seen(bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    gelu = F.gelu
    monkeypatch.setattr(F, "gelu", lambda x, approximate="none": gelu(x))  # noqa: ARG005
    assert error_of(bundles[name], name) > TOLERANCE


# --- other shapes ----------------------------------------------------------------------------------------------------


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    sub_tokens = draw(st.integers(1, 5))
    heads = draw(st.integers(1, 3))
    classes = draw(st.integers(2, 80))
    smallest = Sizes(classes, sub_tokens, 1, 1, 1, 1, 1).radix
    return Sizes(
        classes=classes,
        sub_tokens=sub_tokens,
        length=draw(st.integers(1, 9)),
        # a LayerNorm over two or four numbers can be ill-conditioned
        hidden=8 * heads * sub_tokens * draw(st.integers(1, 3)),
        blocks=draw(st.integers(1, 3)),
        heads=heads,
        condition=draw(st.integers(1, 9)),
        carry_over=draw(st.booleans()),
        base=None if sub_tokens == 1 else max(2, smallest) + draw(st.integers(0, 1)),
    )


@settings(max_examples=25)
@given(sizes=sizes(), weights=st.sampled_from(["ema", "raw"]))
def test_every_shape_gives_the_unfolded_networks_logits(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: Sizes,
    weights: Any,  # noqa: ANN401
) -> None:
    folder = tmp_path_factory.mktemp("shape")
    official_format.save(official_format.checkpoint(sizes, seed=5), folder / "any.ckpt")
    result = import_checkpoint(Request(folder / "any.ckpt", folder / "bundle", weights=weights))
    bundle = open_bundle(folder / "bundle")
    assert result.config == bundle.config
    assert (bundle.config.vocabulary_size, bundle.config.sub_tokens_per_token) == (sizes.classes, sizes.sub_tokens)
    assert (bundle.config.base, bundle.config.length) == (sizes.radix, sizes.length)
    assert bundle.config.carry_over == sizes.carry_over
    generator = torch.Generator().manual_seed(7)
    canvases = torch.randint(0, sizes.radix + 1, (2, sizes.length, sizes.sub_tokens), generator=generator)
    expected = official_logits(random_weights(sizes, 5 + (weights == "ema")), sizes, canvases)
    found = bundle.denoiser.joint_logits(canvases).double()
    assert worst(found, expected[..., : sizes.classes]) < TOLERANCE


# --- Hugging Face's layout -------------------------------------------------------------------------------------------


def to_hugging_face(name: str, folder: Path) -> Path:
    """Golden D's EMA weights as `kuleshov-group/mdlm-owt` lays them out."""
    from safetensors.torch import save_file
    from unmask_model_store.importers.prime import read_lightning
    from unmask_model_store.importers.torch_file import open_torch_file

    folder.mkdir(parents=True, exist_ok=True)
    file = GOLDEN / f"tiny_{name}.ckpt"
    with open_torch_file(file) as opened:
        source = read_lightning(opened, file, "ema")
        tensors = {f"backbone.{key}": source.read(key).contiguous() for key in source.weights}
        shape = source.shape
    half = shape.hidden_size // shape.heads // 2
    tensors["backbone.rotary_emb.inv_freq"] = 10000.0 ** -(torch.arange(half) / half)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "_name_or_path": "kuleshov-group/mdlm-owt",
        "architectures": ["MDLM"],
        "auto_map": {
            "AutoConfig": "configuration_mdlm.MDLMConfig",
            "AutoModelForMaskedLM": "modeling_mdlm.MDLM",
        },
        "cond_dim": 32,
        "dropout": 0.1,
        "hidden_dim": shape.hidden_size,
        "model_length": shape.length,
        "model_type": "mdlm",
        "n_blocks": shape.blocks,
        "n_heads": shape.heads,
        "return_dict": False,
        "time_conditioning": False,
        "torch_dtype": "float32",
        "transformers_version": "4.38.2",
        "vocab_size": shape.vocabulary_size + 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("given_as", ["folder", "file", "cache"])
def test_mdlm_in_hugging_faces_layout(tmp_path: Path, given_as: str) -> None:
    root = tmp_path / "models--kuleshov-group--mdlm-owt"
    folder = to_hugging_face("D", root / "snapshots" / "0123")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0123")
    path = {"folder": folder, "file": folder / "model.safetensors", "cache": root}[given_as]
    import_checkpoint(Request(path, tmp_path / "out"))
    assert error_of(open_bundle(tmp_path / "out"), "D") < TOLERANCE


# --- what else a bundle says -----------------------------------------------------------------------------------------


def test_a_bundle_says_where_it_came_from(bundles: dict[str, Bundle]) -> None:
    config = bundles["A"].config
    assert isinstance(config, PrimeConfig)
    assert (config.vocabulary_size, config.sub_tokens_per_token, config.base, config.length) == (512, 3, 8, 16)
    assert (config.hidden_size, config.blocks, config.heads) == (48, 2, 4)
    assert (config.carry_over, bundles["B"].config.carry_over) == (False, True)
    assert (config.canvas, config.end_token_id, bundles["A"].tokenizer) == ("full", None, None)
    facts = config.provenance
    assert facts["file"] == "tiny_A.ckpt"
    assert facts["sha256"] == "d1d4a01ad81f5de560e65ab36664fc6aedd325962127d296727ee0e7677943f5"
    assert (facts["epoch"], facts["global_step"], facts["weights"], facts["ema_decay"]) == (1, 2, "ema", 0.9999)
    assert "transformers.tokenization_utils_tokenizers.TokenizersBackend" in facts["ignored"]
    card = (bundles["A"].path / "README.md").read_text()
    assert all(str(facts[key]) in card for key in ("file", "sha256", "epoch", "global_step", "ema_decay"))


def test_mdlm_does_not_count_its_mask(bundles: dict[str, Bundle]) -> None:
    config = bundles["D"].config
    assert (config.vocabulary_size, config.sub_tokens_per_token, config.base) == (100, 1, 100)
    assert bundles["D"].sub_tokenizer.mask_id == 100


def test_options_reach_the_bundle(tmp_path: Path) -> None:
    bundle = imported("B", tmp_path, name="prime-b", canvas="as_requested")
    assert (bundle.name, bundle.full_canvas) == ("prime-b", False)


def test_bfloat16_is_what_serving_in_bfloat16_makes(tmp_path: Path, bundles: dict[str, Bundle]) -> None:
    half = imported("A", tmp_path, dtype="bfloat16")
    whole = bundles["A"]
    sizes = [(bundle.path / "model.safetensors").stat().st_size for bundle in (half, whole)]
    assert sizes[0] < 0.75 * sizes[1]
    canvases = golden("tiny_A")["y"]
    logits = [open_bundle(bundle.path, dtype="bfloat16").denoiser.joint_logits(canvases) for bundle in (half, whole)]
    assert torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("name", NAMES)
def test_imported_models_generate(bundles: dict[str, Bundle], name: str) -> None:
    bundle = bundles[name]
    (answer,) = sample(bundle, seed=3)
    assert len(answer.token_ids) == bundle.config.length
    assert all(0 <= token < bundle.config.vocabulary_size for token in answer.token_ids)
