"""Where bundles are found: a path, the user's model folder, or the bundles that ship."""

import os
from pathlib import Path

from unmask_model_store.bundle import CONFIG_FILE
from unmask_model_store.errors import BundleError

SHIPPED_MODEL = "tales"

_HERE = Path(__file__).resolve().parent
# an installed wheel carries the bundles inside the package; a checkout has them beside it
SHIPPED_BUNDLES = next((p for p in (_HERE / "bundles", _HERE.parent / "bundles") if p.is_dir()), _HERE / "bundles")


def default_model_dir() -> Path:
    """`unmask/models` in the user's data directory (XDG)."""
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data_home) / "unmask" / "models"


def find_bundle(name_or_path: str, model_dir: Path) -> Path:
    """The folder of a bundle: an existing path first, then a name in `model_dir`, then one that ships.

    Raises:
        BundleError: nothing of that name; the message lists what there is.
    """
    path = Path(name_or_path)
    names = list_bundles(model_dir)
    # a folder that merely has a model's name, without a bundle in it, does not hide the model
    if path.exists() and (name_or_path not in names or (path / CONFIG_FILE).exists()):
        return path
    if name_or_path in names:
        return names[name_or_path]
    known = ", ".join(names) or "none"
    raise BundleError(f"model {name_or_path!r} is neither a folder nor a model in {model_dir} (models known: {known})")


def list_bundles(model_dir: Path) -> dict[str, Path]:
    """Folder names and paths of the bundles that ship and of those in `model_dir`, which win."""
    found: dict[str, Path] = {}
    for root in (SHIPPED_BUNDLES, model_dir):
        if root.is_dir():
            # names with a dot in front are bundles that are being written
            folders = (p for p in sorted(root.iterdir()) if not p.name.startswith("."))
            found |= {p.name: p for p in folders if (p / CONFIG_FILE).is_file()}
    return found
