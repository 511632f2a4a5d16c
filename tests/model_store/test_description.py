"""What a bundle says about its model: what it is, which settings its author recommends, what training has met."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unmask_diffusion import GenerationSettings, Sampler
from unmask_model_store import (
    BundleError,
    TableConfig,
    open_bundle,
    open_facts,
    open_outline,
    ranges_of,
    read_card,
    read_config,
    read_facts,
    resolve_dtype,
    write_bundle,
)
from unmask_model_store.bundle import CARD_BYTES
from unmask_service.settings import read_settings
from unmask_service.startup import describe, served_model

DESCRIBED = {
    "description": "A toy.",
    "examples": ["one", "two\nlines"],
    "generation": {"temperature": 0.5, "sampler": {"steps": 8}},
    "trained_tokens": "0-1,3",
}


@pytest.fixture
def folder(bundles: Path, tmp_path: Path) -> Path:
    """A copy of the bundle `chain`: 4 classes."""
    return Path(shutil.copytree(bundles / "chain", tmp_path / "chain"))


def configure(folder: Path, **keys: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def test_a_bundle_need_not_say_anything(folder: Path) -> None:
    facts, config = read_facts(folder), read_config(folder)
    assert (facts.description, facts.examples, facts.generation) == (None, [], None)
    assert (config.trained, config.clock, facts.clock) == (None, 1, 1)
    assert (
        not {"examples", "generation", "description", "clock"} & json.loads((folder / "config.json").read_text()).keys()
    )


def test_what_it_says_is_read_and_written_as_it_was_given(folder: Path, tmp_path: Path) -> None:
    configure(folder, **DESCRIBED)
    config = read_config(folder)
    assert config.generation == GenerationSettings(temperature=0.5, sampler=Sampler(steps=8))
    assert config.trained == bytes([1, 1, 0, 1])
    facts = read_facts(folder)
    assert facts.description == "A toy."
    assert facts.examples == ["one", "two\nlines"]
    assert facts.generation == DESCRIBED["generation"]
    assert open_facts(open_bundle(folder)).generation == DESCRIBED["generation"]
    write_bundle(tmp_path / "copy", config, torch.nn.Module().state_dict())
    written = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert {name: written[name] for name in DESCRIBED} == DESCRIBED


def test_the_servers_card_has_the_facts_of_the_bundle(folder: Path) -> None:
    configure(folder, **DESCRIBED, name="toy")
    card = describe(folder, read_settings())
    assert (card.id, card.length, card.vocabulary_size, card.tokenizer) == ("toy", 64, 4, False)
    assert (card.description, card.examples) == ("A toy.", ["one", "two\nlines"])
    assert card.generation == DESCRIBED["generation"]
    assert served_model(open_outline(folder)).trained == bytes([1, 1, 0, 1])


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"description": ""}, "description: "),
        ({"description": "two\nlines"}, "description: "),
        ({"description": "x" * 501}, "description: .*500"),
        ({"examples": "one"}, "examples: "),
        ({"examples": [1]}, r"examples\.0: "),
        ({"examples": [""]}, r"examples\.0: "),
        ({"examples": ["x"] * 21}, "examples: .*20"),
        ({"generation": [1]}, "generation: "),
        ({"generation": {"temperature": -1}}, r"generation\.temperature: "),
        ({"generation": {"temperature": "0.7"}}, r"generation\.temperature: "),
        ({"generation": {"temperature": 101}}, r"generation\.temperature: .*100"),
        ({"generation": {"top_p": 0}}, r"generation\.top_p: "),
        ({"generation": {"top_k": 1.5}}, r"generation\.top_k: "),
        ({"generation": {"seed": 7}}, r"generation\.seed: .*not permitted"),
        ({"generation": {"sampler": {"name": "euler"}}}, r"generation\.sampler\.name: "),
        ({"generation": {"sampler": {"name": "ancestral"}}}, r"generation\.sampler: .*steps"),
        ({"generation": {"sampler": {"block": 8}}}, r"generation\.sampler\.block: .*not permitted"),
        ({"clock": 0}, "clock: .*greater than or equal to 1"),
        ({"clock": 17}, "clock: .*less than or equal to 16"),
        ({"clock": 1.5}, "clock: "),
        ({"trained_tokens": ""}, "trained_tokens: "),
        ({"trained_tokens": [0, 1]}, "trained_tokens: "),
        ({"trained_tokens": "0-"}, "trained_tokens: "),
        ({"trained_tokens": "0, 1"}, "trained_tokens: "),
        ({"trained_tokens": "1-0"}, "trained_tokens: .*ascend"),
        ({"trained_tokens": "0-2,2"}, "trained_tokens: .*ascend"),
        ({"trained_tokens": "2,1"}, "trained_tokens: .*ascend"),
        ({"trained_tokens": "0-4"}, "trained_tokens holds 4; vocabulary_size is 4"),
        ({"trained_tokens": "0-99999999"}, "trained_tokens holds 99999999; vocabulary_size is 4"),
    ],
)
def test_errors_name_the_field(folder: Path, keys: dict[str, object], named: str) -> None:
    configure(folder, **keys)
    with pytest.raises(BundleError, match=named) as refused:
        read_config(folder)
    assert "config.json" in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.sets(st.integers(0, 3), min_size=1))
def test_ranges_come_back(ids: set[int]) -> None:
    config = {"architecture": "table", "length": 2, "vocabulary_size": 4, "sub_tokens_per_token": 2, "base": 2}
    trained = TableConfig.model_validate(config | {"trained_tokens": ranges_of([*ids, *ids])}).trained
    assert trained == bytes(token in ids for token in range(4))


def test_ranges_are_short() -> None:
    assert ranges_of([5, 2, 1, 0, 7, 8]) == "0-2,5,7-8"


def test_a_model_card_is_read_up_to_a_limit(folder: Path) -> None:
    assert read_card(folder) == ""
    (folder / "README.md").write_bytes("ä".encode() * CARD_BYTES)
    card = read_card(folder)
    assert card is not None
    assert card == "ä" * (CARD_BYTES // 2)
    (folder / "README.md").write_bytes(b"# Caf\xe9\n")
    assert read_card(folder) == "# Caf\ufffd\n"
    (folder / "README.md").unlink()
    assert read_card(folder) is None


# --- device and dtype ------------------------------------------------------------------------------------------------


def test_an_exact_model_is_on_the_cpu_whatever_the_machine_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device in ("auto", "cuda"):
        bundle = open_bundle(folder, device=device)
        assert bundle.device == torch.device("cpu")
        assert open_facts(bundle).device == "cpu"


@pytest.mark.parametrize(("has_it", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_only_on_gpus_that_have_it(
    monkeypatch: pytest.MonkeyPatch, has_it: bool, dtype: torch.dtype
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return has_it or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert resolve_dtype("auto", torch.device("cuda")) == dtype
