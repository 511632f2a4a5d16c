"""Where bundles are found: a path, the user's model folder, or the bundles that ship."""

import os
from pathlib import Path

from unmask_model_store.bundle import A_BUNDLE, CONFIG_FILE
from unmask_model_store.config import BundleError

SHIPPED_MODEL = "tales"

_HERE = Path(__file__).resolve().parent
# an installed wheel carries the bundles inside the package; a checkout has them beside it
SHIPPED_BUNDLES = next((p for p in (_HERE / "bundles", _HERE.parent / "bundles") if p.is_dir()), _HERE / "bundles")


def default_model_dir() -> Path | None:
    """`unmask/models` in the user's data directory (XDG); None if the user has no home directory."""
    try:
        data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    except RuntimeError:  # no HOME, and the user id has no entry in passwd: usual in containers
        return None
    return Path(data_home) / "unmask" / "models"


def find_bundle(name_or_path: str, model_dir: Path | None) -> Path:
    """The folder of a bundle: an existing path first, then a name in `model_dir`, then one that ships.

    Raises `BundleError` with the names that are known.
    """
    path = Path(name_or_path)
    names = list_bundles(model_dir)
    # a folder that merely has a model's name, without a bundle in it, does not hide the model
    if path.exists() and (name_or_path not in names or os.path.exists(path / CONFIG_FILE)):
        return path
    if name_or_path in names:
        return names[name_or_path]
    places = f"a folder nor a model in {model_dir}" if model_dir else "a folder nor a model that ships"
    known = ", ".join(names) or "none"
    raise BundleError(f"model {name_or_path!r} is neither {places} (models known: {known}); {A_BUNDLE}")


def list_bundles(model_dir: Path | None) -> dict[str, Path]:
    """The readable bundles by folder name: those that ship, and those in `model_dir`, which win."""
    found: dict[str, Path] = {}
    for root in (SHIPPED_BUNDLES, model_dir):
        try:
            names = sorted(os.listdir(root)) if root else []
        except OSError:
            continue
        # names with a dot in front are bundles that are being written
        folders = {name: root / name for name in names if root and not name.startswith(".")}
        found |= {name: folder for name, folder in folders.items() if os.path.isfile(folder / CONFIG_FILE)}
    return found
