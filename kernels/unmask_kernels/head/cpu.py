"""The head on a CPU: a row reads only the classes that it may become, and a read serves many rows."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unmask_kernels.categorical.cpu import Candidates, draw_candidates
from unmask_kernels.categorical.draws import Draws
from unmask_kernels.consistency_cpu import Classes, consistent_classes

# A row with more than this share of the classes left joins a dense pass over the weight; with fewer, its own rows of
# the weight are gathered.
DENSE_SHARE = 1 / 32
# rows of a dense pass, whose logits are in memory together
DENSE_ROWS = 64
# numbers of the weight that stay in cache while one row after the other meets them
WEIGHT_BLOCK = 400_000


def draw_on_cpu(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, codes: Tensor, draws: Draws
) -> tuple[Tensor, Tensor]:
    """Draw a class for every row of hidden [N, H]; logits of at most DENSE_ROWS rows are in memory.

    Every product is of a matrix and one row, and which matrix depends on the row's own revealed digits alone: so its
    bits don't depend on the other rows.

    Returns:
        classes, int64 [N], and the highest consistent logit of each row, float64 [N]: where this is not finite
        the class is -1.
    """
    return draw_candidates(_candidates(hidden, weight, bias, codes, draws.revealed), draws)


def _candidates(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, codes: Tensor, revealed: Tensor
) -> Iterator[Candidates]:
    consistent = consistent_classes(codes)
    dense: list[tuple[int, Classes]] = []
    for row, digits in enumerate(revealed.tolist()):
        classes = consistent.of(digits)
        if len(classes) > DENSE_SHARE * len(codes):
            dense.append((row, classes))
        else:
            yield Candidates(row, classes, _gathered(_in_place(hidden, row, weight), weight, bias, classes).numpy())
        if len(dense) == DENSE_ROWS:
            yield from _dense_candidates(dense, hidden, weight, bias)
            dense = []
    if dense:
        yield from _dense_candidates(dense, hidden, weight, bias)


def _dense_candidates(
    some: Sequence[tuple[int, Classes]], hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> Iterator[Candidates]:
    """Yield the candidates of some rows, each with its consistent classes, from one pass over the weight."""
    logits = _dense([_in_place(hidden, row, weight) for row, _ in some], weight, bias).numpy()
    for (row, classes), values in zip(some, logits, strict=True):
        yield Candidates(row, classes, values if len(classes) == len(weight) else values[classes])


def _in_place(hidden: Tensor, row: int, weight: Tensor) -> Tensor:
    """One row [H] as the weight's dtype would see it, float32, at an address of its own: bits may depend on that."""
    return hidden[row].to(weight.dtype).float().clone()


def _gathered(row: Tensor, weight: Tensor, bias: Tensor | None, classes: Classes) -> Tensor:
    """Logits of some classes, float32 [K]."""
    index = torch.from_numpy(classes)
    logits = torch.mv(weight[index].float(), row)
    return logits if bias is None else logits.add_(bias[index])


def _dense(rows: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    """Logits of all classes, float32 [rows, C]."""
    logits = torch.empty(len(rows), len(weight))
    size = max(1, WEIGHT_BLOCK // weight.shape[1])
    for start in range(0, len(weight), size):
        block = weight[start : start + size].float()
        for row, values in zip(rows, logits, strict=True):
            torch.mv(block, row, out=values[start : start + size])
    return logits if bias is None else logits.add_(bias)
