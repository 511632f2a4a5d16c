import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from unmask_diffusion import NetworkShape, sample
from unmask_model_store import (
    BundleConfig,
    BundleError,
    MarkovConfig,
    PrimeConfig,
    TableConfig,
    default_model_dir,
    find_bundle,
    list_bundles,
    open_bundle,
    open_facts,
    open_outline,
    read_facts,
    write_bundle,
)

from tests.helpers import END_TOKEN, byte_tokenizer, random_chain, random_network, random_table

TOKENIZER = byte_tokenizer()
PRIME = PrimeConfig(
    architecture="prime",
    name="toy-prime",
    length=16,
    vocabulary_size=TOKENIZER.get_vocab_size(),
    sub_tokens_per_token=2,
    base=17,
    hidden_size=32,
    blocks=2,
    heads=4,
    canvas="as_requested",
    end_token_id=TOKENIZER.token_to_id(END_TOKEN),
    provenance={"made": "by a test", "steps": 0},
)
TABLE = TableConfig(architecture="table", length=3, vocabulary_size=5, sub_tokens_per_token=2, base=3)
MARKOV = MarkovConfig(architecture="markov", length=6, vocabulary_size=4, sub_tokens_per_token=1, base=4)


def tensors_of(config: BundleConfig) -> dict[str, Tensor]:
    if isinstance(config, TableConfig):
        return {"log_probabilities": random_table(config.vocabulary_size, config.length, seed=1).float()}
    if isinstance(config, MarkovConfig):
        initial, transition = random_chain(config.vocabulary_size, seed=1)
        return {"log_initial": initial.float(), "log_transition": transition.float()}
    assert isinstance(config, PrimeConfig)
    return dict(random_network(shape_of(config)).state_dict())


def shape_of(config: PrimeConfig) -> NetworkShape:
    keys = ("length", "vocabulary_size", "sub_tokens_per_token", "base", "hidden_size", "blocks", "heads")
    return NetworkShape(**{key: getattr(config, key) for key in keys})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good bundle of the network, to be broken."""
    target = tmp_path / "model"
    write_bundle(target, PRIME, tensors_of(PRIME), TOKENIZER, card="# A toy\n")
    return target


@pytest.fixture
def table_folder(tmp_path: Path) -> Path:
    target = tmp_path / "table"
    write_bundle(target, TABLE, tensors_of(TABLE))
    return target


def refused(folder: Path, *needles: str) -> None:
    """Opening must fail, and the message must name all of these on one line."""
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert len(message.splitlines()) == 1, message
    missing = [needle for needle in needles if needle not in message]
    assert not missing, f"{missing} not in {message!r}"


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def edit_tensors(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


# --- what is good opens --------------------------------------------------------------------------------------------


def test_what_was_written_is_what_opens(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert bundle.config == PRIME
    assert (bundle.name, bundle.end_token_ids, bundle.full_canvas) == ("toy-prime", (259,), False)
    assert bundle.dtype == torch.float32
    assert (folder / "README.md").read_text() == "# A toy\n"
    assert bundle.tokenizer is not None
    assert bundle.tokenizer.to_str() == TOKENIZER.to_str()
    canvas = bundle.sub_tokenizer.codes[:8][None]
    expected = random_network(shape_of(PRIME)).joint_logits(canvas)
    assert torch.equal(bundle.denoiser.joint_logits(canvas), expected)


@pytest.mark.parametrize("tensors_dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_may_be_stored_in_any_floating_type(folder: Path, tensors_dtype: torch.dtype) -> None:
    edit_tensors(folder, lambda t: t.update({name: tensor.to(tensors_dtype) for name, tensor in t.items()}))
    bundle = open_bundle(folder)
    assert bundle.denoiser.joint_logits(bundle.sub_tokenizer.codes[:8][None]).dtype == torch.float32


def test_bfloat16_is_taken_when_asked_for(folder: Path) -> None:
    bundle = open_bundle(folder, dtype="bfloat16")
    assert bundle.dtype == torch.bfloat16
    logits = bundle.denoiser.joint_logits(bundle.sub_tokenizer.codes[:8][None])
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, open_bundle(folder).denoiser.joint_logits(bundle.sub_tokenizer.codes[:8][None]))


def test_auto_is_one_of_the_two(folder: Path) -> None:
    assert open_bundle(folder, dtype="auto").dtype in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("dtype", ["float16", "", "fp32"])
def test_unknown_dtypes_are_refused(folder: Path, dtype: str) -> None:
    with pytest.raises(BundleError, match="float32, bfloat16"):
        open_bundle(folder, dtype=dtype)


@pytest.mark.parametrize("config", [TABLE, MARKOV])
def test_five_keys_are_enough_for_an_exact_model(tmp_path: Path, config: BundleConfig) -> None:
    folder = tmp_path / "exact"
    folder.mkdir()
    five = ("architecture", "length", "vocabulary_size", "sub_tokens_per_token", "base")
    (folder / "config.json").write_text(json.dumps({key: getattr(config, key) for key in five}))
    save_file(tensors_of(config), folder / "model.safetensors")
    bundle = open_bundle(folder)
    assert bundle.name == "exact"
    assert bundle.tokenizer is None
    assert bundle.end_token_ids == ()
    assert bundle.full_canvas
    (answer,) = sample(bundle, seed=3)
    assert len(answer.token_ids) == config.length


def test_a_permutation_of_the_codes_is_kept(table_folder: Path) -> None:
    edit_config(table_folder, codes=[8, 3, 0, 1, 6])
    assert open_bundle(table_folder).sub_tokenizer.codes.tolist() == [[2, 2], [1, 0], [0, 0], [0, 1], [2, 0]]


def test_minus_infinity_is_a_probability_of_zero(table_folder: Path) -> None:
    edit_tensors(table_folder, lambda t: t["log_probabilities"][0].fill_(-math.inf))
    assert {answer.token_ids[0] for answer in sample(open_bundle(table_folder), n=64, seed=1)} == {1, 2, 3, 4}


def test_a_relative_path_gives_the_folders_name(table_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(table_folder)
    assert open_bundle(".").name == "table"


# --- what is broken is named ---------------------------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "not a folder")


def test_a_file_where_the_folder_should_be(folder: Path) -> None:
    refused(folder / "config.json", "not a folder")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, name, "No such file")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_files_that_cannot_be_read(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    refused(folder, name)


def test_an_empty_folder(tmp_path: Path) -> None:
    refused(tmp_path, "config.json", "is not a bundle", "a bundle is a folder with config.json, model.safetensors")


def test_a_sharded_model(tmp_path: Path) -> None:
    """In Hugging Face's layout; its config.json says a model_type."""
    (tmp_path / "config.json").write_text('{"model_type": "llada", "architectures": ["LLaDAModelLM"]}')
    refused(tmp_path, "is not a bundle", "model_type", "unmask import")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    refused(tmp_path, "is not a bundle", "sharded", "model.safetensors.index.json")


def test_printing_a_bundle_takes_one_short_line(folder: Path, table_folder: Path) -> None:
    edit_config(table_folder, codes=[8, 3, 0, 1, 6])
    for each, words in ((folder, "toy-prime"), (table_folder, "table")):
        for opened in (open_bundle(each), open_outline(each)):
            assert words in repr(opened)
            assert str(opened.config.vocabulary_size) in repr(opened)
            assert len(repr(opened)) < 120
            assert repr(opened).isprintable()


def test_facts_say_the_same_before_and_after_opening(folder: Path, table_folder: Path) -> None:
    for each in (folder, table_folder):
        facts, bundle = read_facts(each), open_bundle(each)
        opened = open_facts(bundle)
        assert vars(facts).items() <= vars(opened).items()
        assert (facts.name, facts.path, facts.tokenizer) == (bundle.name, str(each), bundle.tokenizer is not None)
    assert (facts.parameterization, opened.parameters, opened.bytes_in_memory % 125) == (None, 125, 0)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"nonsense", b"[]", b"3", b"null", b'{"length": 3}', b'\xff\xfe{"a": 1}', b'{"a": NaN}']
)
def test_config_that_is_no_configuration(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    refused(folder, "config.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("flavour", "strange"),
        ("format_version", 2),
        ("format_version", "1"),
        ("architecture", "resnet"),
        ("architecture", ...),
        ("length", ...),
        ("length", 0),
        ("length", "16"),
        ("length", 16.5),
        ("length", True),
        ("vocabulary_size", ...),
        ("vocabulary_size", 1),
        ("sub_tokens_per_token", ...),
        ("sub_tokens_per_token", 0),
        ("base", ...),
        ("base", 1),
        ("base", None),
        ("hidden_size", ...),
        ("hidden_size", -32),
        ("blocks", ...),
        ("heads", ...),
        ("heads", 0),
        ("carry_over", "yes"),
        ("canvas", "infinite"),
        ("end_token_id", -1),
        ("end_token_id", 260),
        ("name", "a name with spaces"),
        ("name", "../elsewhere"),
        ("name", ""),
        ("codes", [0, 1]),
        ("codes", "identity"),
        ("provenance", "here"),
        ("parameterization", "digits"),
        ("parameterization", None),
    ],
)
def test_a_key_that_is_wrong_is_named(folder: Path, key: str, value: object) -> None:
    edit_config(folder, **{key: value})
    refused(folder, "config.json", key)


def test_a_key_of_another_architecture_is_unknown(table_folder: Path) -> None:
    edit_config(table_folder, hidden_size=32)
    refused(table_folder, "config.json", "hidden_size")
    edit_config(table_folder, hidden_size=..., parameterization="joint")
    refused(table_folder, "config.json", "parameterization")


@pytest.mark.parametrize(
    ("changes", "needle"),
    [
        ({"base": 16}, "256"),  # 16 ** 2 codes for 260 tokens
        ({"heads": 3}, "heads"),
        ({"hidden_size": 33}, "hidden_size"),
        ({"codes": [0] * 260}, "code"),
        ({"codes": [289, *range(259)]}, "code"),
        ({"codes": [10**30, *range(259)]}, "code"),
        ({"base": 10**30}, "base"),
        ({"sub_tokens_per_token": 64}, "sub_tokens_per_token"),
        ({"length": 10**15}, "length"),
    ],
)
def test_numbers_that_do_not_fit_each_other(folder: Path, changes: dict[str, Any], needle: str) -> None:
    edit_config(folder, **changes)
    refused(folder, "config.json", needle)


def test_a_table_of_absurd_length(table_folder: Path) -> None:
    edit_config(table_folder, length=10**15)
    refused(table_folder)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x10\0\0\0\0\0\0\0{}"])
def test_weights_that_are_not_safetensors(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "model.safetensors", "safetensors")


def test_weights_that_are_cut_off(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refused(folder, "model.safetensors")


@pytest.mark.parametrize(
    ("edit", "needles"),
    [
        (lambda t: t.pop("blocks.1.attn_out.weight"), ["blocks.1.attn_out.weight", "missing"]),
        (lambda t: t.update(extra=torch.zeros(1)), ["extra"]),
        (lambda t: t.update({"output.bias": torch.zeros(7)}), ["output.bias", "[7]", "[260]"]),
        (lambda t: t.update({"embedding.weight": torch.zeros(17, 16)}), ["embedding.weight", "[17, 16]", "[18, 16]"]),
        (lambda t: t.update({"output.bias": torch.zeros(260, dtype=torch.int64)}), ["output.bias", "int64"]),
        (lambda t: t["norm_final.weight"][3].fill_(math.nan), ["norm_final.weight", "NaN"]),
        (lambda t: t["norm_final.weight"][3].fill_(math.inf), ["norm_final.weight", "inf"]),
        (lambda t: t.clear(), ["missing"]),
    ],
)
def test_a_tensor_that_is_wrong_is_named(
    folder: Path, edit: Callable[[dict[str, Tensor]], object], needles: list[str]
) -> None:
    edit_tensors(folder, edit)
    refused(folder, "model.safetensors", *needles)


@pytest.mark.parametrize(
    ("edit", "needles"),
    [
        (lambda t: t.update(log_probabilities=torch.zeros(5, 5)), ["[5, 5]", "[5, 5, 5]"]),
        (lambda t: t.update(log_probabilities=torch.zeros(5, 5, 4)), ["[5, 5, 4]", "[5, 5, 5]"]),
        (lambda t: t["log_probabilities"][0].fill_(math.nan), ["log_probabilities", "NaN"]),
        (lambda t: t["log_probabilities"][0].fill_(math.inf), ["log_probabilities", "inf"]),
        (lambda t: t["log_probabilities"].fill_(-math.inf), ["log_probabilities"]),
        (lambda t: t.update(probabilities=t.pop("log_probabilities")), ["log_probabilities", "missing"]),
    ],
)
def test_a_table_that_is_none_is_refused(
    table_folder: Path, edit: Callable[[dict[str, Tensor]], object], needles: list[str]
) -> None:
    edit_tensors(table_folder, edit)
    refused(table_folder, "model.safetensors", *needles)


@pytest.mark.parametrize(
    ("edit", "needles"),
    [
        (lambda t: t.pop("log_transition"), ["log_transition", "missing"]),
        (lambda t: t.update(log_initial=torch.zeros(3)), ["log_initial", "[3]", "[4]"]),
        (lambda t: t["log_transition"][1, 1].fill_(math.nan), ["log_transition", "NaN"]),
        (lambda t: t["log_initial"].fill_(-math.inf), ["log_initial"]),
        (lambda t: t["log_transition"][2].fill_(-math.inf), ["log_transition"]),
    ],
)
def test_a_chain_that_is_none_is_refused(
    tmp_path: Path, edit: Callable[[dict[str, Tensor]], object], needles: list[str]
) -> None:
    write_bundle(tmp_path / "chain", MARKOV, tensors_of(MARKOV))
    edit_tensors(tmp_path / "chain", edit)
    refused(tmp_path / "chain", "model.safetensors", *needles)


@pytest.mark.parametrize("content", ["", "nonsense", "{}", '{"model": 3}'])
def test_a_tokenizer_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    refused(folder, "tokenizer.json")


def test_a_tokenizer_that_is_not_unicode_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b"\xff\xfe\xfa")
    refused(folder, "tokenizer.json")


def test_a_tokenizer_larger_than_the_model_is_refused(folder: Path) -> None:
    larger = byte_tokenizer()
    larger.add_tokens(["one more"])
    larger.save(str(folder / "tokenizer.json"))
    refused(folder, "tokenizer.json", "261", "260")


def test_a_tokenizer_with_an_id_beyond_the_model_is_refused(folder: Path) -> None:
    """Few tokens, but one of them has an id that the model has not."""
    config = json.loads(TOKENIZER.to_str())
    vocabulary = config["model"]["vocab"]
    config["model"]["merges"] = []
    del vocabulary["Ġthe"], vocabulary["the"], vocabulary["th"]
    vocabulary["a"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(config))
    refused(folder, "tokenizer.json")


# --- writing -------------------------------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_existing_bundle_is_kept_unless_told_otherwise(folder: Path) -> None:
    before = files_of(folder)
    with pytest.raises(BundleError, match="exists"):
        write_bundle(folder, TABLE, tensors_of(TABLE))
    assert files_of(folder) == before
    write_bundle(folder, TABLE, tensors_of(TABLE), replace=True)
    assert open_bundle(folder).config == TABLE
    assert not (folder / "tokenizer.json").exists()
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unmask_model_store.bundle.save_file", full_disk)
    with pytest.raises(BundleError, match="No space left"):
        write_bundle(tmp_path / "model", TABLE, tensors_of(TABLE))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("culprit", ["write", "rename"])
def test_a_failure_leaves_the_old_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch, culprit: str) -> None:
    before = files_of(folder)

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    if culprit == "write":
        monkeypatch.setattr("unmask_model_store.bundle.save_file", refuse)
    else:
        move = os.rename

        def refuse_the_new(source: str | Path, target: str | Path) -> None:
            if not (Path(source) / "tokenizer.json").exists():  # the table's bundle has none
                refuse()
            move(source, target)

        monkeypatch.setattr(os, "rename", refuse_the_new)
        monkeypatch.setattr(os, "replace", refuse_the_new)
    with pytest.raises(BundleError, match="Input/output"):
        write_bundle(folder, TABLE, tensors_of(TABLE), replace=True)
    assert files_of(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_an_interrupted_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unmask_model_store.bundle.save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "model", TABLE, tensors_of(TABLE))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="file"):
        write_bundle(tmp_path / "file" / "model", TABLE, tensors_of(TABLE))


def test_tensors_need_not_be_contiguous(tmp_path: Path) -> None:
    initial, transition = random_chain(4, seed=1)
    write_bundle(tmp_path / "m", MARKOV, {"log_initial": initial, "log_transition": transition.T})
    assert torch.equal(load_file(tmp_path / "m" / "model.safetensors")["log_transition"], transition.T)


def test_folders_are_made_and_others_may_read_them(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "down" / "model"
    write_bundle(str(target), TABLE, tensors_of(TABLE))
    assert target.stat().st_mode & 0o755 == 0o755
    assert open_bundle(str(target)).config == TABLE


# --- finding -------------------------------------------------------------------------------------------------------


def test_bundles_are_found_by_path_and_by_name(folder: Path, table_folder: Path, tmp_path: Path) -> None:
    assert find_bundle(str(folder), tmp_path / "nowhere") == folder
    assert find_bundle("table", tmp_path) == table_folder
    found = list_bundles(tmp_path)
    assert (found["model"], found["table"]) == (folder, table_folder)


def test_an_unknown_name_lists_those_that_are_known(folder: Path, table_folder: Path, tmp_path: Path) -> None:
    assert folder.parent == table_folder.parent == tmp_path
    with pytest.raises(BundleError, match="nonesuch") as caught:
        find_bundle("nonesuch", tmp_path)
    assert "model" in str(caught.value)
    assert "table" in str(caught.value)


def test_folders_that_are_no_bundles_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert not {"notes", "pipe"} & set(list_bundles(tmp_path))


def test_a_folder_without_a_bundle_does_not_hide_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`unmask serve --model tales` in a folder where something else is called tales."""
    elsewhere = folder.parent / "elsewhere"
    (elsewhere / folder.name).mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    assert find_bundle(folder.name, folder.parent) == folder


@pytest.mark.usefixtures("table_folder")
@pytest.mark.parametrize("what", ["folder of a bundle", "model folder"])
def test_a_folder_that_cannot_be_read_hides_no_model(folder: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    locked = folder if what == "folder of a bundle" else folder.parent
    look, list_folder = os.stat, os.listdir

    def refuse(path: object) -> None:
        if isinstance(path, str | Path) and locked in Path(path).parents:
            raise PermissionError(13, "Permission denied", str(path))

    def guarded_stat(path: Any, **options: Any) -> os.stat_result:  # noqa: ANN401
        refuse(path)
        return look(path, **options)

    def guarded_listdir(path: Any = ".") -> Any:  # noqa: ANN401
        refuse(Path(path) / "entry")
        return list_folder(path)

    monkeypatch.setattr(os, "stat", guarded_stat)
    monkeypatch.setattr(os, "listdir", guarded_listdir)
    with pytest.raises(PermissionError):
        (folder / "config.json").stat()
    assert find_bundle("tales", folder.parent).name == "tales"
    names = list_bundles(folder.parent)
    assert ("table" in names) == (what == "folder of a bundle")
    assert folder.name not in names


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME, and a user id without an entry in passwd."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)

    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(RuntimeError):
        Path.home()


@pytest.mark.usefixtures("no_home")
def test_models_are_found_without_a_home_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_model_dir() is None
    assert find_bundle(str(folder), default_model_dir()) == folder
    assert find_bundle("tales", default_model_dir()).name == "tales"
    with pytest.raises(BundleError, match="tales"):
        find_bundle("nonesuch", default_model_dir())
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_model_dir() == Path("/data/unmask/models")


def test_a_bundle_that_is_being_written_is_not_listed(folder: Path) -> None:
    folder.rename(folder.with_name(".model-x7"))
    assert ".model-x7" not in list_bundles(folder.parent)


def test_an_exact_model_takes_whole_canvases_only(table_folder: Path) -> None:
    edit_config(table_folder, canvas="as_requested")
    refused(table_folder, "config.json", "canvas")


def test_a_tokenizer_that_would_cut_prompts_does_not(folder: Path) -> None:
    tokenizer = Tokenizer.from_str(TOKENIZER.to_str())
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    opened = open_bundle(folder).tokenizer
    assert opened is not None
    assert len(opened.encode("abcdefgh").ids) == 8


def test_sizes_far_beyond_the_weights_are_refused_before_room_is_made(folder: Path) -> None:
    edit_config(folder, hidden_size=2**20, blocks=2**10)
    refused(folder, "config.json", "hidden_size")


def test_absolute_positions_are_parameters(tmp_path: Path) -> None:
    config = PRIME.model_copy(update={"absolute_positions": True})
    network = random_network(replace(shape_of(PRIME), absolute_positions=True))
    write_bundle(tmp_path / "model", config, network.state_dict())
    denoiser = open_bundle(tmp_path / "model").denoiser
    masked = torch.full((1, 8, 2), 17)
    logits = denoiser.joint_logits(masked)
    assert torch.equal(logits, network.joint_logits(masked))
    assert not torch.allclose(logits[0, 0], logits[0, 7])  # the places of a fully masked canvas can be told apart
    assert network.shape.parameters == sum(p.numel() for p in network.parameters())


def test_an_old_configuration_is_of_a_joint_network(folder: Path) -> None:
    edit_config(folder, parameterization=...)
    opened = open_bundle(folder).config
    assert isinstance(opened, PrimeConfig)
    assert opened.parameterization == "joint"


# --- the independent parameterization ------------------------------------------------------------------------------

SHUFFLED = list(range(287, 287 - TOKENIZER.get_vocab_size(), -1))
INDEPENDENT = PRIME.model_copy(update={"parameterization": "independent", "codes": SHUFFLED})


@pytest.fixture
def independent_folder(tmp_path: Path) -> Path:
    """A good bundle whose head has a logit a digit, and whose codes are not the ids."""
    target = tmp_path / "independent"
    network = random_network(replace(shape_of(PRIME), parameterization="independent"))
    write_bundle(target, INDEPENDENT, network.state_dict(), TOKENIZER)
    return target


def test_an_independent_network_opens_with_its_codes(independent_folder: Path) -> None:
    bundle = open_bundle(independent_folder)
    assert bundle.config == INDEPENDENT
    weights = load_file(independent_folder / "model.safetensors")
    assert weights["output.weight"].shape == (2 * 17, 32)
    canvas = bundle.sub_tokenizer.masked(1)
    features = bundle.denoiser.trunk([canvas], [torch.tensor([0])])
    digits = (features @ weights["output.weight"].T + weights["output.bias"])[0]
    expected = [float(digits[code // 17] + digits[17 + code % 17]) for code in SHUFFLED]
    torch.testing.assert_close(bundle.denoiser.joint_logits(canvas[None])[0, 0], torch.tensor(expected))


@pytest.mark.parametrize("written", ["joint", "independent"])
def test_the_weights_of_the_other_parameterization_are_refused(
    folder: Path, independent_folder: Path, written: str
) -> None:
    chosen, other = (folder, "independent") if written == "joint" else (independent_folder, "joint")
    edit_config(chosen, parameterization=other)
    refused(chosen, "model.safetensors", "output.weight", "[260, 32]", "[34, 32]")


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_a_dtype_may_be_torchs_own(folder: Path, dtype: str | torch.dtype) -> None:
    assert open_bundle(folder, dtype).dtype == torch.bfloat16
