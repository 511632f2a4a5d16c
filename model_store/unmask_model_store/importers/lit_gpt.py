"""MDM-Prime-v2 (SlimPajama) and SMDM: lit-gpt's network, in `.pth` files and `.safetensors`.

The files hold tensors alone, or training's state beside them. They don't say how many heads there are, how tokens are
written as digits, nor how ids are shuffled: options do. Cosines and sines of the rotation are bfloat16, as in training.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from unmask_diffusion import LlamaShape

from unmask_model_store.bundle import DTYPES
from unmask_model_store.importers.llama import Names, llama_tensors, rows_by_head
from unmask_model_store.importers.source import Request, Source
from unmask_model_store.importers.tokenizers import ModelTokens, read_model_tokens
from unmask_model_store.importers.torch_file import TensorRecord, TorchFile, open_torch_file
from unmask_model_store.importers.untrusted import ImportFailure, Literals, entries, naming
from unmask_model_store.weights import LazyTensor

EMBEDDING, HEAD, NORM = "transformer.wte.weight", "lm_head.weight", "transformer.ln_f.weight"
BLOCK = {
    "norm1.weight": "norm_1.weight",
    "attn_qkv.weight": "attn.attn.weight",
    "attn_out.weight": "attn.proj.weight",
    "norm2.weight": "norm_2.weight",
    "gate.weight": "mlp.swiglu.w1.weight",
    "up.weight": "mlp.swiglu.w2.weight",
    "mlp_out.weight": "mlp.swiglu.w3.weight",
}
LENGTH = 2048  # of all that are published
LARGEST_TABLE = 2**24


def state_of(content: object) -> Mapping[str, Any]:
    """The tensors of a file: its `model`, or all of it."""
    found = entries(content) or {}
    state = entries(found["model"]) if "model" in found else found
    return {name: tensor for name, tensor in (state or {}).items() if isinstance(name, str)}


def is_known(state: Mapping[str, object]) -> bool:
    """Whether tensors have the names of these networks."""
    return EMBEDDING in state and HEAD in state and "transformer.h.0.attn.attn.weight" in state


def read_file(opened: TorchFile, file: Path, request: Request) -> Source:
    """Read a `.pth` file; its tensors can be read as long as it is open."""
    tensors: dict[str, LazyTensor] = {}
    for name, record in state_of(opened.content).items():
        if not isinstance(record, TensorRecord):
            raise ImportFailure(f"its {name} is not a plain tensor")
        tensors[name] = LazyTensor(record.shape, record.storage.dtype, partial(opened.read_tensor, record))
    hparams = Literals((entries(opened.content) or {}).get("hparams"))
    digits = hparams.integer("chunk_size") if hparams.given("chunk_size") else None
    return read_tensors(tensors, file, request, digits, opened.ignored)


def read_tensors(
    tensors: Mapping[str, LazyTensor],
    file: Path,
    request: Request,
    trained_digits: int | None = None,
    ignored: tuple[str, ...] = (),
) -> Source:
    """Make a source of the tensors of a file; `trained_digits` are the sub-tokens per token that training noted."""
    request.takes("a model of MDM-Prime-v2 or SMDM", "codes", "heads", "sub_tokens", "base", "length")
    if request.weights == "raw":
        raise ImportFailure("has one set of weights; --weights raw cannot be chosen")
    classes, rows = _rows(tensors, HEAD), _rows(tensors, EMBEDDING)
    plain = rows == classes + 1 and request.sub_tokens in (None, 1)
    digits, base = (1, classes) if plain else _digits(rows, classes, request, trained_digits)
    codes = None if plain else _codes(request, classes, base**digits)
    if plain and (request.codes or request.base not in (None, classes)):
        raise ImportFailure("has plain tokens (an embedding row for each and the mask): no --codes and no --base")
    hidden, notes = _width(tensors, EMBEDDING), []
    heads = request.heads
    if heads is None:
        width = 64 if hidden <= 1024 else 128
        heads = max(1, hidden // width)
        notes.append(f"the file does not say how many heads there are: {heads}, each {hidden // heads} wide (--heads)")
    if hidden % heads:
        raise ImportFailure(f"its width {hidden} is not divisible by {heads} heads")
    if request.length is None:
        notes.append(f"the file does not say how long a canvas may be: {LENGTH} tokens (--length)")
    shape = _shape(tensors, request.length or LENGTH, classes, digits, base, hidden, heads, plain)
    names = Names(
        EMBEDDING,
        NORM,
        HEAD,
        {part: f"transformer.h.{{}}.{name}" for part, name in BLOCK.items()},
        change={"attn_qkv.weight": rows_by_head(shape)},
    )
    made = llama_tensors(shape, names, tensors, DTYPES[request.dtype] if request.dtype else None)
    tokens = ModelTokens(None, [])
    if request.tokenizer is not None:
        tokens = read_model_tokens(file.parent, request.tokenizer, classes)
    keys: dict[str, Any] = {**vars(shape), "architecture": "llama", "carry_over": plain, "codes": codes}
    keys |= {"canvas": request.canvas or "as_requested", **tokens.config(tokens.ends)}
    if tokens.bos is not None:
        keys["add_bos"] = "prompt" if plain else "prompt_and_suffix"
    family = "SMDM" if plain else "MDM-Prime-v2"
    return Source(
        [file], keys, made, {"format": "lit-gpt", "family": family}, ignored, tokens.tokenizer, tokens.extras,
        tuple(notes),
    )  # fmt: skip


def _shape(
    tensors: Mapping[str, LazyTensor],
    length: int,
    classes: int,
    digits: int,
    base: int,
    hidden: int,
    heads: int,
    plain: bool,
) -> LlamaShape:
    blocks = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("transformer.h."))
    try:
        return LlamaShape(
            length=length,
            vocabulary_size=classes,
            sub_tokens_per_token=digits,
            base=base,
            hidden_size=hidden,
            blocks=blocks,
            heads=heads,
            key_value_heads=heads,
            head_width=hidden // heads,
            inner_size=_rows(tensors, "transformer.h.0.mlp.swiglu.w1.weight"),
            rotary_tables="bfloat16",
            digit_embeddings="concatenated" if plain else "summed",
        )
    except ValueError as error:
        raise ImportFailure(f"its sizes do not fit each other: {error}") from error


def _digits(rows: int, classes: int, request: Request, trained: int | None) -> tuple[int, int]:
    """The sub-tokens of a token and their base: the embedding has (b + 1) · l rows, which alone does not tell."""
    digits = request.sub_tokens or trained
    if digits is None:
        fitting = ", ".join(
            f"--sub-tokens {count} --base {rows // count - 1}"
            for count in range(1, min(rows, 64) + 1)
            if rows % count == 0 and rows // count > 2 and (rows // count - 1) ** count >= classes
        )
        options = fitting or "--sub-tokens and --base"
        raise ImportFailure(f"does not say how tokens are written as digits: say {options}")
    base = request.base or rows // digits - 1
    if (base + 1) * digits != rows or base < 2:
        raise ImportFailure(
            f"its embedding has {rows} rows; --sub-tokens {digits} --base {base} needs {(base + 1) * digits}"
        )
    if base**digits < classes:
        raise ImportFailure(f"--sub-tokens {digits} --base {base} has {base**digits} codes for {classes} classes")
    return digits, base


def _codes(request: Request, classes: int, space: int) -> list[int]:
    """The code of every token id, from the shuffle table."""
    if request.codes is None:
        raise ImportFailure("its token ids are shuffled by a table that is not in the file: say --codes FILE")
    return read_codes(request.codes, classes, space)


def read_codes(file: Path, classes: int, space: int) -> list[int]:
    """Read a shuffle table: code of a token id = table[id], for all codes or the first C.

    A file that torch wrote, with a tensor of whole numbers, or JSON with a list of them.

    Raises `ImportFailure`: it is another file, or the codes are not distinct ones below b^l.
    """
    with naming(file):
        if file.suffix == ".json":
            if file.stat().st_size > 16 * LARGEST_TABLE:
                raise ImportFailure("is too large for a shuffle table")
            content: object = Literals.of_file(file).root
        else:
            with open_torch_file(file) as opened:
                content = opened.content
                if isinstance(content, TensorRecord):
                    content = numbers_of(content.shape, content.storage.dtype, partial(opened.read_tensor, content))
        return check_codes(content, classes, space)


def numbers_of(shape: tuple[int, ...], dtype: torch.dtype, read: Callable[[], Tensor]) -> list[int]:
    """The numbers of a tensor that is a table. Raises `ImportFailure`: it is another tensor."""
    if len(shape) != 1 or shape[0] > LARGEST_TABLE or dtype.is_floating_point:
        raise ImportFailure(f"its tensor is {dtype} {list(shape)[:4]}; a shuffle table is a row of whole numbers")
    numbers: list[int] = read().tolist()
    return numbers


def check_codes(table: object, classes: int, space: int) -> list[int]:
    """The first C codes of a table, which must be distinct and below b^l."""
    if not isinstance(table, list) or not all(type(each) is int for each in table):
        raise ImportFailure("is not a shuffle table: a list of codes by token id")
    if len(table) not in (classes, space):
        raise ImportFailure(f"has {len(table)} codes; there are {classes} classes and {space} codes")
    codes = table[:classes]
    if len(set(codes)) != classes or min(codes) < 0 or max(codes) >= space:
        raise ImportFailure(f"is not a shuffle table: its first {classes} codes must be distinct and below {space}")
    return codes


def _rows(tensors: Mapping[str, LazyTensor], name: str) -> int:
    return _matrix(tensors, name)[0]


def _width(tensors: Mapping[str, LazyTensor], name: str) -> int:
    return _matrix(tensors, name)[1]


def _matrix(tensors: Mapping[str, LazyTensor], name: str) -> tuple[int, ...]:
    if name not in tensors or len(tensors[name].shape) != 2:
        raise ImportFailure(f"has no matrix {name}")
    return tensors[name].shape
