"""The judges of the models that ship, and chains: a frontier end to end."""

import json
from pathlib import Path

import pytest
import torch
from unmask_model_store import SHIPPED_MODEL, find_bundle, open_bundle

from benchmarks import frontier
from benchmarks.__main__ import main


def test_what_tales_were_trained_on_is_consistent_and_nonsense_is_not() -> None:
    bundle = open_bundle(find_bundle(SHIPPED_MODEL, Path()))
    judge = frontier.TalesJudge(bundle, 96)
    tales = judge.draw(5, seed=1)
    assert tales.shape == (5, 96)
    found = judge.values(tales)
    assert (found["consistent"][0], found["broken rules"]) == (1, (0, 0))
    mixed = torch.cat([tales[:3], tales[3:].flip(1)])
    assert judge.values(mixed)["consistent"][0] == pytest.approx(3 / 5)
    assert judge.broken_rules(mixed)[:3] == [0, 0, 0]


def test_composed_pictures_are_whole_and_a_stray_pixel_is_seen() -> None:
    judge = frontier.FacesJudge(avatars=50)
    pictures = judge.draw(4, seed=1)
    pictures[0, 0] = (pictures[0, 0] + 1) % 64
    found = judge.values(pictures)
    assert found["whole"][0] == 3 / 4
    assert 0 < found["unseen patches"][0] < 1


def test_a_chain_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "chain.json"
    main(["frontier", "chain-2", "--samples", "2", "--evaluations", "2", "--sampler", "groups", "--out", str(file)])
    found = json.loads(file.read_text())
    assert [each["evaluations"] for each in found["cells"]] == [256, 2]
    assert found["criteria"][0]["name"] == "bigrams"
    assert "2 evaluations: groups" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="nosuchmodel"):
        main(["frontier", "nosuchmodel"])
