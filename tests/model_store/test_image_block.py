import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from unmask_model_store import BundleError, open_bundle, open_outline, read_config, read_facts
from unmask_service.settings import read_settings
from unmask_service.startup import describe

from tests.conftest import PIXELS
from tests.helpers_command_line import Run

BLOCK = PIXELS.model_dump()


@pytest.fixture
def folder(bundles: Path, tmp_path: Path) -> Path:
    """A copy of the bundle `pixels`: 4 x 4 pixels, 4 classes."""
    return Path(shutil.copytree(bundles / "pixels", tmp_path / "pixels"))


def configure(folder: Path, **keys: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def test_a_bundle_paints_its_canvases(folder: Path, bundles: Path) -> None:
    bundle = open_bundle(folder)
    assert bundle.image is not None
    painted = bundle.image.paint(torch.tensor([3, 2, 1, 0] * 4))
    assert painted.shape == (4, 4, 4)
    assert painted[0].tolist() == [list(colour) for colour in reversed(BLOCK["palette"])]
    assert open_outline(folder).image is not None
    assert open_outline(bundles / "chain").image is None


def test_facts_and_card_carry_the_block(folder: Path, bundles: Path, run: Run) -> None:
    wire = json.loads(json.dumps(BLOCK))
    facts = read_facts(folder)
    assert json.loads(json.dumps(facts.image)) == wire
    card = describe(folder, read_settings()).model_dump(mode="json")
    assert (card["image"], card["clock"]) == (wire, 3)
    assert read_facts(bundles / "chain").image is None
    assert not {"image", "clock"} & describe(bundles / "chain", read_settings()).model_dump().keys()
    assert json.loads(run("info", str(folder), "--json").stdout)["image"] == wire
    assert "4 x 4 pixels, a palette of 4 colours" in " ".join(run("info", str(folder)).stdout.split())
    assert "image" not in json.loads((bundles / "chain" / "config.json").read_text())
    assert asdict(facts)["clock"] == 3


def test_the_card_has_codes_that_are_not_the_ids(folder: Path) -> None:
    assert "codes" not in describe(folder, read_settings()).model_dump()
    configure(folder, codes=[0, 1, 2, 3])
    assert read_facts(folder).codes is None
    configure(folder, codes=[3, 1, 2, 0])
    assert describe(folder, read_settings()).model_dump()["codes"] == [3, 1, 2, 0]


def test_bytes_need_no_palette(folder: Path) -> None:
    bytes_of = {"vocabulary_size": 256, "base": 16, "sub_tokens_per_token": 2}
    for channels, width, classes, base in ((3, 2, 256, 16), (1, 6, 256, 16), (2, 3, 4096, 64)):
        configure(folder, **bytes_of | {"vocabulary_size": classes, "base": base, "length": 12})
        configure(folder, image={"height": 2, "width": width, "channels": channels})
        config = read_config(folder)
        assert config.image is not None
        assert config.model_dump(exclude_none=True)["image"] == {"height": 2, "width": width, "channels": channels}


WRONG = [
    ({"height": 3}, r"image: height · width · channels is 12; length is 16"),
    ({"height": 0}, r"image.height: "),
    ({"height": 4.0}, r"image.height: "),
    ({"channels": 4}, r"image.channels: "),
    ({"colours": 4}, r"image.colours: "),
    ({"palette": BLOCK["palette"][:3]}, r"image.palette has 3 colours .* each of 4 classes"),
    ({"palette": [*BLOCK["palette"][:3], (0, 0, 256, 255)]}, r"image.palette.3.2: "),
    ({"palette": [*BLOCK["palette"][:3], (0, 0, 0)]}, r"image.palette.3"),
    ({"palette": None}, r"image without a palette: .*not 1 of 4"),
    ({"channels": 2, "width": 2}, r"image.channels is 2"),
]


@pytest.mark.parametrize(("keys", "complaint"), WRONG, ids=[str(keys)[:40] for keys, _ in WRONG])
def test_a_wrong_block_is_refused(folder: Path, keys: dict[str, object], complaint: str) -> None:
    configure(folder, image=BLOCK | keys)
    with pytest.raises(BundleError, match=complaint):
        read_config(folder)


def test_a_picture_has_no_end_token_and_a_table_of_colours_that_fits(folder: Path) -> None:
    configure(folder, end_token_id=0)
    with pytest.raises(BundleError, match="image: a picture has no end"):
        read_config(folder)
    configure(folder, end_token_id=None, base=2, sub_tokens_per_token=40)
    with pytest.raises(BundleError, match=r"image: .* exceeds 1048576 colours"):
        read_config(folder)
