"""Compile every kernel of the draw, the softmax and Philox for a GPU that need not be there."""

import sys
from collections.abc import Iterator
from typing import Any

from triton import compiler
from triton.backends.compiler import GPUTarget
from unmask_kernels.triton import categorical, log_softmax, philox

TYPES = {
    "*i64": ("revealed", "codes", "seeds", "events", "indices", "drawn", "highs", "lows"),
    "*fp64": ("temperatures",),
    "*i32": ("tile_winners",),
    "*fp32": ("peaks", "sums", "highest", "result"),
    "i32": ("stride", "classes", "largest", "count"),
}
TYPE_OF = {name: kind for kind, names in TYPES.items() for name in names}
COMPUTE_CAPABILITY = 80
TILES = {"tiles": 50, "block": 64}


def kernels() -> Iterator[tuple[Any, str, dict[str, int]]]:
    """Each kernel with a dtype of the logits and its constants."""
    for dtype in ("*fp32", "*bf16", "*fp16"):
        for base in (15, 0):
            yield categorical._tile_winner_kernel, dtype, {"length": 4, "base": base, "tile": 1024}
    yield categorical._row_winner_kernel, "*fp32", TILES
    for base in (15, 0):
        yield log_softmax._sums_kernel, "*fp32", {"length": 4, "base": base, "tile": 1024}
    yield log_softmax._write_kernel, "*fp32", {"length": 4, "base": 15, "tile": 1024, **TILES}
    yield philox._random_words_kernel, "*fp32", {"purpose": 0, "block": 1024}


def compiled(kernel: Any, dtype: str, constants: dict[str, int]) -> Any:  # noqa: ANN401
    names = [parameter.name for parameter in kernel.params]
    types = {**TYPE_OF, "logits": dtype, **dict.fromkeys(constants, "constexpr")}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = compiler.ASTSource(fn=kernel, signature={name: types[name] for name in names}, constexprs=values)
    return compiler.compile(source, target=GPUTarget("cuda", COMPUTE_CAPABILITY, 32))


for kernel, dtype, constants in kernels():
    binary = compiled(kernel, dtype, constants)
    sys.stdout.write(f"{kernel.__name__} {dtype} {constants}: {len(binary.asm['cubin'])} bytes\n")
