"""A bundle: one folder that holds a model — `config.json`, `model.safetensors`, `tokenizer.json`, `README.md`."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor
from torch.overrides import TorchFunctionMode
from unmask_diffusion import (
    AddBos,
    Denoiser,
    Extent,
    LlamaDenoiser,
    MarkovDenoiser,
    Painter,
    PrimeDenoiser,
    SubTokenizer,
    TableDenoiser,
    UNetDenoiser,
    UNetShape,
)
from unmask_kernels import CPU_HAS_BFLOAT16

from unmask_model_store.config import (
    BUNDLE_CONFIG,
    BundleConfig,
    BundleError,
    LlamaConfig,
    MarkovConfig,
    NetworkConfig,
    TableConfig,
    UNetConfig,
)
from unmask_model_store.weights import (
    LazyTensor,
    check_finite,
    check_log_weights,
    check_tensors,
    read_tensors,
    save_file,
)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SHARDS_FILE = "model.safetensors.index.json"  # in Hugging Face's layout: which shard holds which tensor
TOKENIZER_FILE = "tokenizer.json"
CARD_FILE = "README.md"
CARD_BYTES = 256 << 10  # most bytes of a model card that are read

A_BUNDLE = f"a bundle is a folder with {CONFIG_FILE}, {WEIGHTS_FILE} and, for text, {TOKENIZER_FILE}"

# number of parameters that may be allocated although the file holds fewer
FREE_PARAMETERS = 10**8

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, repr=False)
class BundleOutline:
    """A model without its weights: enough to plan requests and to read logs. Satisfies `unmask_diffusion.Outline`."""

    path: Path
    name: str  # the model's name for the server
    config: BundleConfig
    denoiser: Extent  # the network's sizes
    sub_tokenizer: SubTokenizer  # the table of codes
    tokenizer: Tokenizer | None  # text ↔ ids; None: ids only
    image: Painter | None  # how canvases are painted; None where they are no pictures

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        return self.config.end_token_ids

    @property
    def bos_token_id(self) -> int | None:
        return self.config.bos_token_id

    @property
    def add_bos(self) -> AddBos:
        return self.config.add_bos

    @property
    def carry_over(self) -> bool:
        return self.config.carry_over

    @property
    def full_canvas(self) -> bool:
        """Whether the network always sees its whole length."""
        return self.config.canvas == "full"

    @property
    def clock(self) -> int:
        """The `sampler.clock` of requests that have none."""
        return self.config.clock

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.config.architecture}, {self.config.sizes}>"


@dataclass(frozen=True, repr=False)
class Bundle(BundleOutline):
    """An open model. Satisfies `unmask_diffusion.Model`."""

    denoiser: Denoiser  # the network, or an exact distribution
    dtype: torch.dtype  # of the blocks' projections
    device: torch.device  # where the network runs; exact models stay on the CPU


def open_outline(path: str | Path) -> BundleOutline:
    """Open everything in a bundle's folder but the weights; raise `BundleError` if something is wrong."""
    folder = Path(path)
    config = read_config(folder)
    try:
        sub_tokenizer = SubTokenizer.from_base(
            config.vocabulary_size, config.sub_tokens_per_token, config.base, config.codes
        )
    except ValueError as error:
        raise BundleError(f"{folder / CONFIG_FILE}: {error}") from error
    image = None if config.image is None else Painter(**dict(config.image), sub_tokenizer=sub_tokenizer)
    return BundleOutline(
        folder, name_of(folder, config), config, config, sub_tokenizer, _read_tokenizer(folder, config), image
    )


def open_bundle(path: str | Path, dtype: str | torch.dtype = "float32", device: str = "cpu") -> Bundle:
    """Open a bundle's folder and check all of it.

    Args:
        path: the folder.
        dtype: of the blocks' projections: "float32", "bfloat16", or "auto": bfloat16 where the hardware has it.
        device: "cpu", "cuda", or "auto": a GPU if there is one.

    Raises:
        BundleError: a file is missing or broken, a key unknown, a tensor of another shape, a version not known here.
    """
    outline = open_outline(path)
    resolved_device = resolve_device(device)
    if not isinstance(outline.config, NetworkConfig):
        resolved_device = torch.device("cpu")  # exact models stay there
    resolved_dtype = resolve_dtype(dtype, resolved_device)
    denoiser = _build_denoiser(outline.path, outline.config, outline.sub_tokenizer, resolved_dtype, resolved_device)
    return Bundle(**vars(outline) | {"denoiser": denoiser}, dtype=resolved_dtype, device=resolved_device)


def name_of(folder: Path, config: BundleConfig) -> str:
    """The model's name: the configuration's, else the folder's."""
    return config.name or folder.resolve().name


def resolve_device(device: str) -> torch.device:
    """Name → device; raise `BundleError` if the name is unknown or this machine has no such device."""
    if device not in ("auto", "cpu", "cuda"):
        raise BundleError(f"device {device!r} is not one of auto, cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise BundleError("device 'cuda' is not available: torch sees no GPU on this machine")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Name → dtype, or `BundleError`. "auto" is bfloat16 where the GPU or the processor multiplies it."""
    if dtype == "auto":
        if device.type == "cuda":
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            has_bfloat16 = CPU_HAS_BFLOAT16
        return torch.bfloat16 if has_bfloat16 else torch.float32
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise BundleError(f"dtype {name!r} is not one of auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def read_config(folder: Path) -> BundleConfig:
    """Read `config.json`; raise `BundleError` if the folder is not a bundle, or a key is unknown, missing or wrong."""
    file = folder / CONFIG_FILE
    if not os.path.isdir(folder):
        raise BundleError(f"{folder}: is not a folder; {A_BUNDLE}")
    if is_sharded(folder):
        raise BundleError(f"{folder}: is not a bundle but a sharded model ({SHARDS_FILE}); {A_BUNDLE}")
    try:
        content = file.read_bytes()
        return BUNDLE_CONFIG.validate_json(content)
    except FileNotFoundError as error:
        raise BundleError(f"{folder}: is not a bundle: {CONFIG_FILE}: {error.strerror}; {A_BUNDLE}") from error
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        if b'"model_type"' in content and b'"architecture"' not in content:
            raise BundleError(
                f"{folder}: is not a bundle: its {CONFIG_FILE} is that of a Hugging Face model, with a model_type; "
                "`unmask import` makes a bundle of it if its family is known"
            ) from error
        first = error.errors(include_url=False, include_context=False)[0]
        architectures = ("prime", "llama", "unet", "table", "markov")
        key = ".".join(str(part) for part in first["loc"] if part not in architectures)
        raise BundleError(f"{file}: {key + ': ' if key else ''}{first['msg']}") from error


def read_card(folder: Path) -> str | None:
    """Read the model card, the README.md, at most its first 256 KiB; None if there is none or it cannot be read."""
    try:
        with (folder / CARD_FILE).open("rb") as file:
            return file.read(CARD_BYTES).decode(errors="replace")
    except OSError:
        return None


def is_sharded(folder: Path) -> bool:
    """Whether the weights in a folder are in several files, with an index."""
    return os.path.exists(folder / SHARDS_FILE) and not os.path.exists(folder / WEIGHTS_FILE)


def write_bundle(
    folder: str | Path,
    config: BundleConfig,
    tensors: Mapping[str, Tensor | LazyTensor],
    tokenizer: Tokenizer | None = None,
    card: str = "",
    replace: bool = False,
    extras: Mapping[str, str] | None = None,
) -> None:
    """Write a bundle to a temporary folder and rename it, so that nobody sees a half-written one.

    `extras` are further files, by name, such as `chat_template.jinja`.

    Raises `BundleError` if the folder exists already and `replace` is false, or it cannot be written.
    """
    target = Path(folder)
    if target.exists() and not replace:
        raise BundleError(f"{target} exists already")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise BundleError(f"{target}: cannot be written: {error.strerror}") from error
    try:
        (temporary / CONFIG_FILE).write_text(json.dumps(config.model_dump(exclude_none=True), indent=2) + "\n")
        save_file(tensors, temporary / WEIGHTS_FILE)
        if tokenizer is not None:
            (temporary / TOKENIZER_FILE).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        for name, text in {CARD_FILE: card, **(extras or {})}.items():
            (temporary / name).write_text(text, encoding="utf-8")
        temporary.chmod(0o755)
        _rename_over(temporary, target)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{target}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename_over(new: Path, target: Path) -> None:
    """Rename a finished folder to its target; delete the previous one only after that."""
    if not target.exists():
        new.rename(target)
        return
    previous = new.with_name(new.name + "-old")
    target.rename(previous)
    try:
        new.rename(target)
    except OSError:
        previous.rename(target)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def _build_denoiser(
    folder: Path, config: BundleConfig, sub_tokenizer: SubTokenizer, dtype: torch.dtype, device: torch.device
) -> Denoiser:
    file = folder / WEIGHTS_FILE
    tensors = read_tensors(file)
    classes = config.vocabulary_size
    if isinstance(config, TableConfig):
        check_tensors(file, tensors, {"log_probabilities": (classes,) * config.length})
        check_log_weights(file, "log_probabilities", tensors["log_probabilities"].flatten())
        return TableDenoiser(tensors["log_probabilities"], sub_tokenizer)
    if isinstance(config, MarkovConfig):
        check_tensors(file, tensors, {"log_initial": (classes,), "log_transition": (classes, classes)})
        check_log_weights(file, "log_initial", tensors["log_initial"])
        check_log_weights(file, "log_transition", tensors["log_transition"])
        return MarkovDenoiser(tensors["log_initial"], tensors["log_transition"], config.length, sub_tokenizer)
    return _build_network(folder, config, sub_tokenizer, tensors, dtype).to(device)


def _build_network(
    folder: Path, config: NetworkConfig, sub_tokenizer: SubTokenizer, tensors: Mapping[str, Tensor], dtype: torch.dtype
) -> PrimeDenoiser | LlamaDenoiser | UNetDenoiser:
    try:
        shape = config.shape
    except ValueError as error:
        raise BundleError(f"{folder / CONFIG_FILE}: {error}") from error
    stored = sum(tensor.numel() for tensor in tensors.values())
    if shape.parameters > max(
        2 * stored, FREE_PARAMETERS
    ):  # far too many to allocate them before the shapes are checked
        size = "widths" if isinstance(shape, UNetShape) else "hidden_size"
        raise BundleError(
            f"{folder / CONFIG_FILE}: {size}, blocks, vocabulary_size and base ask for {shape.parameters} "
            f"parameters; {WEIGHTS_FILE} holds {stored}"
        )
    network: PrimeDenoiser | LlamaDenoiser | UNetDenoiser
    with SkipInitialisation():
        if isinstance(config, LlamaConfig):
            network = LlamaDenoiser(config.shape, config.undrawable)
        elif isinstance(config, UNetConfig):
            network = UNetDenoiser(config.shape)
        else:
            network = PrimeDenoiser(config.shape, sub_tokenizer.codes)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    check_tensors(folder / WEIGHTS_FILE, tensors, expected)
    check_finite(folder / WEIGHTS_FILE, tensors)
    if not isinstance(network, LlamaDenoiser):  # its large tensors stay mapped, unless `serve_in` wants another dtype
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
    network.load_state_dict(tensors, assign=True)
    return network.requires_grad_(False).eval().serve_in(dtype)


class SkipInitialisation(TorchFunctionMode):
    """Leave new weights uninitialised: they are about to be read, and drawing 10^8 random numbers takes seconds.

    (torch's meta device does the same, but its first use imports the compiler, which takes seconds too.)
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _read_tokenizer(folder: Path, config: BundleConfig) -> Tokenizer | None:
    file = folder / TOKENIZER_FILE
    if not file.exists():
        return None
    try:
        tokenizer: Tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise BundleError(f"{file}: is not a tokenizer: {error}") from error
    tokenizer.no_truncation()  # a prompt that is too long is refused, never cut
    tokenizer.no_padding()
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if highest >= config.vocabulary_size:
        raise BundleError(
            f"{file}: has {tokenizer.get_vocab_size()} tokens with ids up to {highest}; "
            f"vocabulary_size is {config.vocabulary_size}"
        )
    return tokenizer
