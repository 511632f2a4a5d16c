"""Checkpoints with something changed, and how an import must refuse them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unmask_model_store.importers import ImportFailure, Request, import_checkpoint

from tests.model_store import official_format
from tests.model_store.official_format import Sizes

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


def shadows(content: Content) -> list[Any]:
    found: list[Any] = content["ema"]["shadow_params"]
    return found


def config_of(content: Content) -> Content:
    found: Content = content["hyper_parameters"]["config"]
    return found
