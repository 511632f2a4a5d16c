"""MDM-Prime's image checkpoints: where the network's sizes and weights are in them, and the weights of our U-Net.

Such a file has `model`, which holds the EMA's weights without names beside the raw ones, and `args`, the official
command line, which says how tokens are written as digits but not how large the network is: shapes and names say that.
Attention heads cannot be seen in a file, so their width is an option.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from unmask_diffusion import UNetShape
from unmask_diffusion.painter import BYTES
from unmask_diffusion.request import MAX_CLOCK

from unmask_model_store.bundle import DTYPES
from unmask_model_store.config import printable
from unmask_model_store.importers.source import Request, Source, Weights
from unmask_model_store.importers.torch_file import TensorRecord, TorchFile
from unmask_model_store.importers.untrusted import ImportFailure, Literals, Recorded, entries
from unmask_model_store.weights import LazyTensor, find_fault

EMBEDDING = "pixel_embedding.embedding_table.weight"
HEAD_CHANNELS = 64  # of all official models
RAW, SHADOW = "model.", "shadow_params."
LARGEST_SIDE = 1024  # pixels: the file's tensors do not bound the picture's size


@dataclass(frozen=True)
class Network:
    """An official image network in a file, with its weights unread but their shapes checked."""

    shape: UNetShape  # the mask is not counted as a class
    mask_is_a_class: bool  # where l = 1 the head has one more class, the last, which is never drawn
    weights: Mapping[str, TensorRecord]  # by their official names
    opened: TorchFile

    def lazy(self, official: str, dtype: torch.dtype = torch.float32) -> LazyTensor:
        """An official tensor, to be read later. Ours are 1x1 convolutions where the official is 1 wide."""
        shape = self.weights[official].shape
        if len(shape) == 3:
            shape = (*shape, 1)
        return LazyTensor(shape, dtype, lambda: self.read(official).to(dtype).reshape(shape))

    def read(self, official: str) -> Tensor:
        """Read a tensor, float32; raise `ImportFailure` if it holds NaN or an infinity."""
        tensor = self.opened.read_tensor(self.weights[official]).float()
        if not bool(tensor.isfinite().all()):
            kind = "NaN" if bool(tensor.isnan().any()) else "an infinity"
            raise ImportFailure(f"tensor {official} holds {kind}")
        return tensor


def is_image_checkpoint(content: object) -> bool:
    """Whether a file's content has the keys of an image checkpoint."""
    return {"model", "args"} <= set(entries(content) or {})


def read_image_checkpoint(opened: TorchFile, file: Path, request: Request) -> Source:
    """Read an image checkpoint; raise `ImportFailure` if it is not one, or an option is not for images."""
    if request.tokenizer is not None or request.canvas == "as_requested":
        option = "--tokenizer" if request.tokenizer else "--canvas as_requested"
        raise ImportFailure(f"is an image model, which has no text and always sees all of its canvas: no {option}")
    checkpoint = entries(opened.content) or {}
    kept, weights = _weights(checkpoint, request.weights)
    if EMBEDDING not in weights:
        raise ImportFailure(f"is not an MDM-Prime image model: its weights have no {EMBEDDING}")
    args = checkpoint["args"]
    arguments = Literals(args.state if isinstance(args, Recorded) else args)
    shape = _shape(arguments, weights, request.head_channels or HEAD_CHANNELS)
    network = Network(shape, shape.sub_tokens_per_token == 1, weights, opened)
    if fault := find_fault(
        {n: LazyTensor(r.shape, r.storage.dtype, Tensor) for n, r in weights.items()}, dict(_expected(network))
    ):
        raise ImportFailure(fault)
    config = {
        "architecture": "unet",
        "carry_over": False,  # training never filters, whatever the official sampler is told
        "length": shape.length,
        **vars(shape) | {"widths": list(shape.widths), "attention": list(shape.attention)},
    }
    if (shape.channels, shape.vocabulary_size) in BYTES:
        config["image"] = {"height": shape.height, "width": shape.width, "channels": shape.channels}
    if arguments.has("schedule_n"):
        config["clock"] = _clock(arguments)
    tensors = _tensors(network, DTYPES[request.dtype or "float32"])
    return Source([file], config, tensors, _provenance(checkpoint, arguments, kept), opened.ignored)


# --- the weights of the file ------------------------------------------------------------------------------------------


def _weights(checkpoint: Mapping[Any, Any], wanted: Weights) -> tuple[Weights, dict[str, TensorRecord]]:
    """The weights that are wanted, by their official names; a file without an EMA has one set alone."""
    state = {name: value for name, value in (entries(checkpoint["model"]) or {}).items() if isinstance(name, str)}
    state.pop("num_updates", None)
    for name, value in state.items():
        if not isinstance(value, TensorRecord):
            raise ImportFailure(f"its model's {printable(name)} is not a plain tensor")
    shadows = {name: tensor for name, tensor in state.items() if name.startswith(SHADOW)}
    raw = {name.removeprefix(RAW): tensor for name, tensor in state.items() if name.startswith(RAW)}
    if not raw and not shadows:
        return "raw", state
    if wanted == "raw":
        return "raw", raw
    if not shadows:
        raise ImportFailure("has no EMA weights (model.shadow_params); --weights raw takes the others")
    if len(shadows) != len(raw):
        raise ImportFailure(f"its EMA has {len(shadows)} weights; its model has {len(raw)}")
    chosen = {}
    for i, (name, tensor) in enumerate(raw.items()):  # the EMA's have numbers in place of names, in the same order
        shadow = shadows.get(f"{SHADOW}{i}")
        if shadow is None:
            raise ImportFailure(f"its EMA has no {SHADOW}{i}")
        if shadow.shape != tensor.shape:
            raise ImportFailure(
                f"its {SHADOW}{i} has the shape {printable(list(shadow.shape), 60)}; "
                f"{printable(name)} has {printable(list(tensor.shape), 60)}"
            )
        chosen[name] = shadow
    return "ema", chosen


def _shape(arguments: Literals, weights: Mapping[str, TensorRecord], head_channels: int) -> UNetShape:
    """The sizes: digits and classes from the command line, all others from the shapes and names of the weights.

    A super-token's command line describes the pixel, not the two tokens that the network sees: there shapes decide.
    """
    super_token = arguments.has("super_token") and arguments.boolean("super_token")
    sub_tokens = 1 if super_token else arguments.integer("target_length", most=64)
    rows, width_of_digit = _sizes(weights, EMBEDDING, 2)
    outputs, top, *_ = _sizes(weights, "unet.out.2.weight", 4)
    channels = top // max(1, width_of_digit * sub_tokens)
    classes = outputs // max(1, channels) - (sub_tokens == 1)
    if not super_token:
        for key, found in (("base", rows - 1), ("vocab_size", classes)):
            if (stated := arguments.integer(key, least=2)) != found:
                raise ImportFailure(f"its args.{key} is {stated}; the shapes of its weights make it {found}")
    pixels, rest = divmod(arguments.integer("seq_length"), max(1, channels))
    side = isqrt(pixels)
    if rest or side * side != pixels or side > LARGEST_SIDE:
        raise ImportFailure(
            f"its args.seq_length is {arguments.integer('seq_length')}, which is no square picture of at most "
            f"{LARGEST_SIDE} x {LARGEST_SIDE} pixels of {channels} channels"
        )
    blocks = _last_of_run(weights, 1)
    if not blocks:
        raise ImportFailure("is not an MDM-Prime image model: its weights have no unet.input_blocks.1")
    starts: list[int] = []
    while _has_block(weights, start := 1 + len(starts) * (blocks + 1)):
        starts.append(start)
    widths = tuple(_sizes(weights, f"unet.input_blocks.{n}.0.out_layers.3.weight", 4)[0] for n in starts)
    attention = tuple(f"unet.input_blocks.{n}.1.qkv.weight" in weights for n in starts)
    try:
        return UNetShape(side, side, channels, classes, sub_tokens, rows - 1, widths, blocks, attention, head_channels)
    except ValueError as error:
        raise ImportFailure(f"its sizes do not fit each other: {error}") from error


def _has_block(weights: Mapping[str, TensorRecord], number: int) -> bool:
    return f"unet.input_blocks.{number}.0.in_layers.0.weight" in weights


def _last_of_run(weights: Mapping[str, TensorRecord], first: int) -> int:
    """How many input blocks follow one another; a pool without weights ends the run."""
    count = 0
    while _has_block(weights, first + count):
        count += 1
    return count


def _sizes(weights: Mapping[str, TensorRecord], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in weights:
        raise ImportFailure(f"tensor {name} is missing")
    shape = weights[name].shape
    if len(shape) != dimensions:
        raise ImportFailure(f"tensor {name} has the shape {printable(list(shape), 60)}, not {dimensions} dimensions")
    return shape


def _clock(arguments: Literals) -> int:
    """The exponent n of the official schedule, which knows t ** n of the digits at time t: that is our clock."""
    exponent = arguments.number("schedule_n")
    if exponent not in range(1, MAX_CLOCK + 1):
        raise ImportFailure(f"its args.schedule_n is {exponent}; only whole numbers from 1 to {MAX_CLOCK} are served")
    return int(exponent)


def _provenance(checkpoint: Mapping[Any, Any], arguments: Literals, weights: Weights) -> dict[str, Any]:
    found: dict[str, Any] = {"format": "mdm-prime image", "weights": weights}
    if type(epoch := checkpoint.get("epoch")) is int and abs(epoch) < 2**63:
        found["epoch"] = epoch
    if arguments.has("dataset"):
        found["dataset"] = printable(arguments.string("dataset"))
    return found


# --- official names and ours ------------------------------------------------------------------------------------------


def _stages(shape: UNetShape) -> Iterator[tuple[str, str, str, int, int, bool]]:
    """Our name of each stage, the official ones of its block and its attention, widths in and out, attention or not."""
    a_level = shape.blocks + 1
    for level, (inputs, width) in enumerate(zip(shape.inputs_down, shape.widths, strict=True)):
        for i, width_in in enumerate(inputs):
            official = f"unet.input_blocks.{level * a_level + 1 + i}"
            yield f"down.{level}.{i}", f"{official}.0", f"{official}.1", width_in, width, shape.attention[level]
    bottom = shape.widths[-1]
    yield "middle.0", "unet.middle_block.0", "unet.middle_block.1", bottom, bottom, True
    yield "middle.1", "unet.middle_block.2", "", bottom, bottom, False
    for level, (inputs, width) in enumerate(zip(shape.inputs_up, shape.widths[::-1], strict=True)):
        for i, width_in in enumerate(inputs):
            official = f"unet.output_blocks.{level * a_level + i}"
            yield f"up.{level}.{i}", f"{official}.0", f"{official}.1", width_in, width, shape.attention[::-1][level]


def _expected(network: Network) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The official names and shapes of all weights."""
    shape = network.shape
    top = shape.widths[0]
    yield EMBEDDING, (shape.base + 1, top // (shape.channels * shape.sub_tokens_per_token))
    for _, block, attention, width_in, width, has_attention in _stages(shape):
        yield from _with_bias(f"{block}.in_layers.0", width_in)
        yield from _with_bias(f"{block}.in_layers.2", width, width_in, 3, 3)
        yield f"{block}.emb_layers.embedding_table", (1, 2 * width)
        yield from _with_bias(f"{block}.out_layers.0", width)
        yield from _with_bias(f"{block}.out_layers.3", width, width, 3, 3)
        if width_in != width:
            yield from _with_bias(f"{block}.skip_connection", width, width_in, 1, 1)
        if has_attention:
            yield from _with_bias(f"{attention}.norm", width)
            yield from _with_bias(f"{attention}.qkv", 3 * width, width, 1)
            yield from _with_bias(f"{attention}.proj_out", width, width, 1)
    yield from _with_bias("unet.out.0", top)
    yield from _with_bias("unet.out.2", shape.channels * (shape.vocabulary_size + network.mask_is_a_class), top, 3, 3)


def _with_bias(layer: str, *weight: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{layer}.weight", weight
    yield f"{layer}.bias", weight[:1]


def _tensors(network: Network, dtype: torch.dtype) -> dict[str, LazyTensor]:
    """The tensors of `UNetDenoiser`, the convolutions of its stages in `dtype`; each is read when it is written."""
    tensors = {"embedding.weight": network.lazy(EMBEDDING)}
    kinds = ("weight", "bias")

    def take(ours: str, official: str, dtype: torch.dtype = torch.float32) -> None:
        tensors.update((f"{ours}.{kind}", network.lazy(f"{official}.{kind}", dtype)) for kind in kinds)

    for ours, block, attention, width_in, width, has_attention in _stages(network.shape):
        take(f"{ours}.block.norm1", f"{block}.in_layers.0")
        take(f"{ours}.block.conv1", f"{block}.in_layers.2", dtype)
        for kind in kinds:
            read = partial(_folded_norm, network, block, kind)
            tensors[f"{ours}.block.norm2.{kind}"] = LazyTensor((width,), torch.float32, read)
        take(f"{ours}.block.conv2", f"{block}.out_layers.3", dtype)
        if width_in != width:
            take(f"{ours}.block.skip", f"{block}.skip_connection", dtype)
        if has_attention:
            take(f"{ours}.attention.norm", f"{attention}.norm")
            take(f"{ours}.attention.qkv", f"{attention}.qkv", dtype)
            take(f"{ours}.attention.proj", f"{attention}.proj_out", dtype)
    take("norm", "unet.out.0")
    outputs = network.shape.channels * network.shape.vocabulary_size
    for kind in kinds:
        _, *inputs = network.weights[f"unet.out.2.{kind}"].shape
        read = partial(_output, network, kind)
        tensors[f"output.{kind}"] = LazyTensor((outputs, *inputs), torch.float32, read)
    return tensors


def _folded_norm(network: Network, block: str, kind: str) -> Tensor:
    """GN(h) · (1 + scale) + shift as one norm: weight · (1 + scale), bias · (1 + scale) + shift, in float64."""
    scale, shift = network.read(f"{block}.emb_layers.embedding_table").double()[0].chunk(2)
    changed = network.read(f"{block}.out_layers.0.{kind}").double() * (1 + scale)
    rounded = (changed if kind == "weight" else changed + shift).float()
    if not bool(rounded.isfinite().all()):
        raise ImportFailure(f"tensor {block}.out_layers.0.{kind} overflows float32 once its scale is folded in")
    return rounded


def _output(network: Network, kind: str) -> Tensor:
    """The output convolution without the mask's own class, the last of each channel."""
    classes = network.shape.vocabulary_size
    tensor = network.read(f"unet.out.2.{kind}").unflatten(0, (network.shape.channels, -1))
    drawn: Tensor = tensor[:, :classes].flatten(0, 1).contiguous()
    return drawn
