"""MDLM in Hugging Face's layout (`kuleshov-group/mdlm-owt`): `config.json` and `model.safetensors`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from unmask_model_store.importers.errors import ImportFailure, naming, printable
from unmask_model_store.importers.official import PREFIX, ROTARY, Source, check_rotary, network_shape
from unmask_model_store.importers.omega import Literals
from unmask_model_store.weights import LazyTensor

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@contextmanager
def open_mdlm_folder(folder: Path) -> Iterator[Source]:
    """Open a folder in Hugging Face's layout; its weights can be read as long as it is open.

    Raises:
        ImportFailure: it is none, or that of another kind of model.
    """
    with naming(folder / CONFIG_FILE):
        config = _config(folder / CONFIG_FILE)
        classes = config.integer("vocab_size", least=3) - 1  # the last is the mask
        shape = network_shape(
            length=config.integer("model_length"),
            classes=classes,
            sub_tokens=1,
            base=classes,
            hidden_size=config.integer("hidden_dim"),
            blocks=config.integer("n_blocks"),
            heads=config.integer("n_heads"),
        )
        condition = config.integer("cond_dim")
    with naming(folder / WEIGHTS_FILE), _open(folder / WEIGHTS_FILE) as file:
        names = [name for name in file.keys() if name != PREFIX + ROTARY]  # noqa: SIM118 - not a mapping
        if PREFIX + ROTARY in file.keys():  # noqa: SIM118
            check_rotary(file.get_tensor(PREFIX + ROTARY))
        weights = {name.removeprefix(PREFIX): _lazy(file, name) for name in names}
        yield Source(shape, condition, True, True, weights, {"format": "huggingface"})


def _open(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise ImportFailure(f"is not a safetensors file: {printable(error)}") from error


def _lazy(file: safe_open, name: str) -> LazyTensor:
    # a view of the mapped file: nothing is read before it is looked at
    tensor: Tensor = file.get_tensor(name)  # type: ignore[no-untyped-call]
    return LazyTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def _config(file: Path) -> Literals:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ImportFailure("is not JSON") from error
    config = Literals(content)
    if (kind := config.string("model_type")) != "mdlm":
        raise ImportFailure(f"its model_type is {printable(kind, 40)!r}; only 'mdlm' is served")
    if config.boolean("time_conditioning"):
        raise ImportFailure("is time-conditioned; only time-agnostic models (time_conditioning false) are served")
    return config
