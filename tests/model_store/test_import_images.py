"""Imported image checkpoints against the official code's own numbers (tests/golden), and files that are refused."""

import json
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unmask_diffusion import UNetDenoiser, UNetShape, sample
from unmask_diffusion.networks import unet
from unmask_kernels import consistent_log_softmax
from unmask_model_store import Bundle, BundleError, ImageConfig, SkipInitialisation, UNetConfig, open_bundle
from unmask_model_store.importers import Request, import_checkpoint
from unmask_model_store.importers.image import read_image_checkpoint
from unmask_model_store.importers.torch_file import TorchFile

from tests.model_store.bad_checkpoints import refused
from tests.model_store.official_images import FormulaFile
from tests.model_store.test_import_golden import GOLDEN, error_of, golden, worst

TOLERANCE = 1e-4
HEAD_CHANNELS = {"I": 16, "K": 32}
Content = dict[str, Any]


def imported(which: str, folder: Path, **options: Any) -> Bundle:  # noqa: ANN401 — keywords of Request
    options = {"head_channels": HEAD_CHANNELS[which]} | options
    import_checkpoint(Request(GOLDEN / f"tiny_{which}.pth", folder / which, **options))
    return open_bundle(folder / which)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("imported")
    return {name: imported(name, folder) for name in HEAD_CHANNELS}


@pytest.mark.parametrize("name", HEAD_CHANNELS)
def test_logits_are_the_official_ones(bundles: dict[str, Bundle], name: str) -> None:
    assert error_of(bundles[name], name) < TOLERANCE


def test_logits_at_the_published_size(tmp_path: Path) -> None:
    """114 million parameters by the importer's own way, but for the file itself; one of the three canvases."""
    opened = cast("TorchFile", FormulaFile(GOLDEN / "official_l2.json"))
    source = read_image_checkpoint(opened, tmp_path / "official.pth", Request(tmp_path / "official.pth", tmp_path))
    config = UNetConfig(**source.config)
    assert (config.clock, config.carry_over) == (3, False)
    assert config.image == ImageConfig(height=32, width=32, channels=3)
    assert config.shape == UNetShape(32, 32, 3, 256, 2, 16, (288, 384, 384), 5, (False, True, False), 64)
    with SkipInitialisation():
        network = UNetDenoiser(config.shape).requires_grad_(False)
    network.load_state_dict({name: tensor.read() for name, tensor in source.tensors.items()}, assign=True)
    arrays = golden("official_l2")
    found = network.joint_logits(arrays["y"][1:2].long())
    assert worst(found[:, arrays["positions"].long()], arrays["logits"][1:2]) < 3e-5
    sums = found.double().sum((1, 2))
    assert torch.allclose(sums, arrays["logits_sum"][1:2].double(), rtol=0, atol=0.1)


@pytest.mark.parametrize("name", HEAD_CHANNELS)
def test_carry_over_log_probabilities_are_the_official_ones(bundles: dict[str, Bundle], name: str) -> None:
    bundle, arrays = bundles[name], golden(f"tiny_{name}")
    logits = bundle.denoiser.joint_logits(arrays["y"]).flatten(0, 1)
    found = consistent_log_softmax(logits, arrays["y"].flatten(0, 1), bundle.sub_tokenizer.codes)
    assert worst(found, arrays["log_probs_carry"].flatten(0, 1)) < TOLERANCE


def test_the_chain_of_marginals_is_the_official_one(bundles: dict[str, Bundle]) -> None:
    bundle, arrays = bundles["I"], golden("tiny_I")
    codes, canvas = bundle.sub_tokenizer.codes, bundle.sub_tokenizer.masked(bundle.config.length)
    truth = bundle.sub_tokenizer.encode(arrays["chain_x0"])
    for step, sub_token in enumerate(arrays["order"].tolist()):
        position, j = divmod(sub_token, 2)
        if step % 7 == 0:
            (features,) = bundle.denoiser.trunk([canvas], [torch.tensor([position])])
            joint = consistent_log_softmax(features[None], canvas[position : position + 1], codes)[0]
            marginal = joint[codes[:, j] == truth[position, j]].logsumexp(0)
            assert abs(float(marginal) - float(arrays["chain_log_probs"][step])) < TOLERANCE, step
        canvas[position, j] = truth[position, j]


@pytest.mark.parametrize("name", HEAD_CHANNELS)
def test_raw_weights_are_others(tmp_path: Path, name: str) -> None:
    bundle, arrays = imported(name, tmp_path, weights="raw"), golden(f"tiny_{name}")
    assert error_of(bundle, name) > 0.1
    raw = arrays["logits_raw_weights"][..., : bundle.config.vocabulary_size]
    assert worst(bundle.denoiser.joint_logits(arrays["y"][:1]), raw) < TOLERANCE


# --- typical mistakes would be seen -----------------------------------------------------------------------------------


def another_epsilon(bundle: Bundle, _: pytest.MonkeyPatch) -> None:
    for layer in cast("nn.Module", bundle.denoiser).modules():
        if isinstance(layer, nn.GroupNorm):
            layer.eps = 1e-6


def other_heads(bundle: Bundle, _: pytest.MonkeyPatch) -> None:
    for layer in cast("nn.Module", bundle.denoiser).modules():
        if isinstance(layer, unet.AttentionBlock):
            layer.head_channels = 32


def smooth_up(_: Bundle, patch: pytest.MonkeyPatch) -> None:
    interpolate = F.interpolate
    patch.setattr(F, "interpolate", lambda x, **_: interpolate(x, scale_factor=2, mode="bilinear"))


def largest_down(_: Bundle, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(F, "avg_pool2d", F.max_pool2d)


def another_activation(_: Bundle, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(F, "silu", F.gelu)


def kept_before_latest(_: Bundle, patch: pytest.MonkeyPatch) -> None:
    cat = torch.cat
    patch.setattr(torch, "cat", lambda parts, dim=0: cat(parts[::-1] if dim == 1 else parts, dim=dim))


@pytest.mark.parametrize(
    "mistake",
    [another_epsilon, other_heads, smooth_up, largest_down, another_activation, kept_before_latest],
    ids=lambda mistake: mistake.__name__,
)
def test_mistakes_would_be_seen(
    bundles: dict[str, Bundle],
    monkeypatch: pytest.MonkeyPatch,
    mistake: Callable[[Bundle, pytest.MonkeyPatch], None],
) -> None:
    bundle = open_bundle(bundles["I"].path)
    mistake(bundle, monkeypatch)
    assert error_of(bundle, "I") > 100 * TOLERANCE


# --- bits -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_canvas_knows_neither_its_company_nor_what_is_read(bundles: dict[str, Bundle], dtype: str) -> None:
    denoiser = open_bundle(bundles["K"].path, dtype=dtype).denoiser
    canvases = list(golden("tiny_K")["y"])
    rows = [torch.arange(0, 128, 3 + i) for i in range(4)]
    together = denoiser.trunk(canvases, rows).split([len(read) for read in rows])
    for canvas, read, among_others in zip(canvases, rows, together, strict=True):
        assert torch.equal(denoiser.trunk([canvas], [torch.arange(128)])[read], among_others)


def test_bfloat16_is_near_float32_and_the_same_from_either_file(tmp_path: Path, bundles: dict[str, Bundle]) -> None:
    """Weights rounded to 8 bits move logits, whose deviation is 0.6, by up to 0.04 here."""
    half, canvases = imported("I", tmp_path, dtype="bfloat16"), golden("tiny_I")["y"]
    paths = (half.path, bundles["I"].path)
    logits = [open_bundle(path, dtype="bfloat16").denoiser.joint_logits(canvases) for path in paths]
    assert torch.equal(logits[0], logits[1])
    assert 1e-4 < float((logits[0] - bundles["I"].denoiser.joint_logits(canvases)).abs().max()) < 0.05


def test_what_a_canvas_takes_is_known(bundles: dict[str, Bundle]) -> None:
    """The logits and the maps that the way down keeps are a lower bound of the estimate."""
    denoiser = bundles["I"].denoiser
    shape = cast("UNetConfig", bundles["I"].config).shape
    maps = sum(width * shape.pixels[i // (shape.blocks + 1)] for i, width in enumerate(shape.kept))
    assert denoiser.activation_bytes_per_token * denoiser.length > 4 * (maps + denoiser.length * 256)


# --- what a bundle says -----------------------------------------------------------------------------------------------


def test_an_image_bundle(bundles: dict[str, Bundle]) -> None:
    config = bundles["I"].config
    assert isinstance(config, UNetConfig)
    assert (config.vocabulary_size, config.sub_tokens_per_token, config.base, config.length) == (256, 2, 16, 128)
    assert (config.carry_over, config.canvas, bundles["I"].tokenizer) == (False, "full", None)
    assert config.provenance["ignored"] == []
    card = (bundles["I"].path / "README.md").read_text()
    assert "8 x 8 pixels" in card
    assert (config.clock, config.image) == (3, None)  # two channels of bytes are no colour
    assert "tiny_I.pth" in card


def test_a_mask_is_no_class(bundles: dict[str, Bundle]) -> None:
    config = bundles["K"].config
    assert (config.vocabulary_size, config.sub_tokens_per_token, config.base) == (64, 1, 64)
    (answer,) = sample(bundles["K"], canvas=[None] * 128, seed=3)
    assert all(0 <= token < 64 for token in answer.token_ids)


def test_parameters_are_counted(bundles: dict[str, Bundle]) -> None:
    for bundle in bundles.values():
        shape = cast("UNetConfig", bundle.config).shape
        assert shape.parameters == sum(p.numel() for p in cast("nn.Module", bundle.denoiser).parameters())
    official = UNetShape(32, 32, 3, 256, 2, 16, (288, 384, 384), 5, (False, True, False), 64)
    scales_and_shifts = 2 * (5 + 6) * (288 + 384 + 384) + 2 * 2 * 384
    assert official.parameters + scales_and_shifts == 113_965_680
    assert official.flops / 1e9 == pytest.approx(79.3, abs=0.05)


@pytest.mark.parametrize(
    ("key", "value", "needle"),
    [
        ("length", 127, "length is 127"),
        ("height", 7, "cannot be halved"),
        ("widths", [48, 32], "groups"),
        ("widths", [2**20, 2**20], "widths"),
        ("attention", [True], "attention"),
        ("head_channels", 5, "head_channels"),
        ("channels", 3, "length"),
        ("canvas", "as_requested", "canvas"),
        ("image", {"height": 4, "width": 16, "channels": 2}, "image"),
    ],
)
def test_bundles_whose_sizes_do_not_fit(
    tmp_path: Path, bundles: dict[str, Bundle], key: str, value: object, needle: str
) -> None:
    config = bundles["K"].config.model_dump() | {key: value}
    if key == "channels":
        config["widths"] = [96, 96]
    shutil.copytree(bundles["K"].path, tmp_path / "bundle")
    (tmp_path / "bundle" / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(BundleError, match=needle):
        open_bundle(tmp_path / "bundle")


# --- other files ------------------------------------------------------------------------------------------------------


def content() -> Content:
    loaded: Content = torch.load(GOLDEN / "tiny_K.pth", weights_only=False)
    return loaded | {"optimizer": {}, "args": vars(loaded["args"])}


def written(folder: Path, edit: Callable[[Content], object] = lambda _: None) -> Path:
    """Golden K with something changed in it; `args` is a dictionary meanwhile."""
    changed = content()
    edit(changed)
    if isinstance(changed["args"], dict):
        changed["args"] = Namespace(**changed["args"])
    torch.save(changed, folder / "some.pth")
    return folder / "some.pth"


def without_ema(changed: Content) -> None:
    model = changed["model"]
    changed["model"] = {n.removeprefix("model."): t for n, t in model.items() if n.startswith("model.")}


def sorted_as_strings(changed: Content) -> None:
    model = changed["model"]
    shadows = sorted(name for name in model if name.startswith("shadow"))
    changed["model"] = {n: t for n, t in model.items() if n not in shadows} | {n: model[n] for n in shadows}


def a_super_token(changed: Content) -> None:
    """Such a command line describes the pixel: the network sees two tokens, whose sizes the shapes tell."""
    changed["args"].update(super_token=True, target_length=2, base=64, vocab_size=256)


@pytest.mark.parametrize("edit", [sorted_as_strings, a_super_token])
def test_other_files_of_the_same_network(tmp_path: Path, edit: Callable[[Content], None]) -> None:
    import_checkpoint(Request(written(tmp_path, edit), tmp_path / "bundle", head_channels=32))
    assert error_of(open_bundle(tmp_path / "bundle"), "K") < TOLERANCE


def test_a_file_without_an_ema_has_one_set_of_weights(tmp_path: Path) -> None:
    import_checkpoint(Request(written(tmp_path, without_ema), tmp_path / "bundle", head_channels=32))
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.config.provenance["weights"] == "raw"
    assert error_of(bundle, "K") > 0.1


def model_of(changed: Content) -> dict[str, Tensor]:
    found: dict[str, Tensor] = changed["model"]
    return found


@pytest.mark.parametrize(
    ("edit", "needles"),
    [
        (lambda c: c.update(model={"conv.weight": torch.zeros(1)}), ["image model", "pixel_embedding"]),
        (lambda c: c.update(model=3), ["image model"]),
        (lambda c: c["args"].pop("target_length"), ["target_length"]),
        (lambda c: c["args"].update(base=63), ["args.base", "63", "64"]),
        (lambda c: c["args"].update(vocab_size=60), ["args.vocab_size", "60", "64"]),
        (lambda c: c["args"].update(seq_length=126), ["seq_length", "126", "square"]),
        (lambda c: c["args"].update(seq_length=2 * 4096**2), ["seq_length"]),
        (lambda c: c["args"].update(seq_length="\x1b[2J"), ["seq_length"]),
        (lambda c: c.update(args=7), ["target_length"]),
        (lambda c: c["args"].update(schedule_n=2.5), ["schedule_n", "2.5"]),
        (lambda c: c["args"].update(schedule_n=float("nan")), ["schedule_n"]),
        (lambda c: model_of(c).pop("shadow_params.7"), ["EMA", "108", "109"]),
        (
            lambda c: model_of(c).update({"shadow_params.400": model_of(c).pop("shadow_params.7")}),
            ["shadow_params.7"],
        ),
        (lambda c: model_of(c).update({"shadow_params.7": torch.zeros(3)}), ["shadow_params.7", "[3]"]),
        (lambda c: model_of(c)["shadow_params.7"].fill_(float("nan")), ["NaN"]),
        (lambda c: c["model"].update({"shadow_params.7": 3}), ["shadow_params.7", "tensor"]),
        (
            lambda c: [model_of(c).pop(name) for name in list(model_of(c)) if name.startswith("shadow")],
            ["EMA", "--weights raw"],
        ),
        (
            lambda c: model_of(c).update(
                {"model.unet.label_emb.weight": torch.zeros(3), "shadow_params.109": torch.zeros(3)}
            ),
            ["unet.label_emb.weight", "does not belong"],
        ),
    ],
)
def test_files_that_are_refused(tmp_path: Path, edit: Callable[[Content], object], needles: list[str]) -> None:
    refused(written(tmp_path, edit), *needles, head_channels=32)


@pytest.mark.parametrize(
    "options", [{"canvas": "as_requested"}, {"tokenizer": Path("tokenizer.json")}, {"head_channels": 7}]
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, Any]) -> None:
    (needle,) = options
    refused(written(tmp_path), needle, **options)


def test_a_text_model_has_no_head_channels(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes((GOLDEN / "tiny_A.ckpt").read_bytes())
    refused(tmp_path / "a.ckpt", "--head-channels", head_channels=64)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.9999])
def test_a_file_that_is_cut_off(tmp_path: Path, share: float) -> None:
    whole = (GOLDEN / "tiny_K.pth").read_bytes()
    (tmp_path / "some.pth").write_bytes(whole[: int(share * len(whole))])
    refused(tmp_path / "some.pth")


class Malicious:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.file,)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    hidden = written(tmp_path, lambda c: c["args"].update(wandb_key=Malicious(trap)))
    result = import_checkpoint(Request(hidden, tmp_path / "bundle", head_channels=32))
    assert any("touch" in name or "Path" in name or "getattr" in name for name in result.ignored)
    assert error_of(open_bundle(tmp_path / "bundle"), "K") < TOLERANCE
    open_one = written(tmp_path, lambda c: c.update(model=Malicious(trap)))
    refused(open_one, "image model")
    assert not trap.exists()
