"""The draw of one class for each hidden row: the product of the head and the draw in one, a few logits at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unmask_kernels import dispatch
from unmask_kernels.categorical import RowLogits, draw_reference, draw_rows
from unmask_kernels.consistency import Classes, consistent_classes
from unmask_kernels.draws import Draws, checked_classes

# A row with more than this share of the classes left joins a dense pass over the weight; with fewer, its own rows of
# the weight are gathered.
DENSE_SHARE = 1 / 32
# number of rows of a dense pass, whose logits are in memory together
DENSE_ROWS = 64
# number of elements of the weight that stay in cache while one row after the other is multiplied with them
WEIGHT_BLOCK = 400_000


@torch.no_grad()
def draw_from_hidden(
    hidden: Tensor,  # [N, H], cast to the weight's dtype first
    weight: Tensor,  # [C, H]; products are summed in float32
    bias: Tensor | None,  # [C]
    codes: Tensor,  # int64 [C, l], the digits of every class
    draws: Draws,  # N rows
) -> Tensor:
    """Draw a class for each row from the softmax of the head's logits, `draw(hidden @ weight.T + bias, …)`.

    The result is int64 [N], in host memory.

    Rows with revealed digits read only the rows of the weight that belong to consistent classes, others all of it;
    the maths is in this folder's README. A row's class is a function of that row's arguments alone, bit for bit.
    The errors are those of `draw`.
    """
    if hidden.shape != (len(draws), *weight.shape[1:]) or hidden.ndim != 2 or len(weight) != len(codes):
        raise ValueError(
            f"hidden [N, H] and weight [C, H] don't fit {len(draws)} draws of {len(codes)} codes: "
            f"{list(hidden.shape)}, {list(weight.shape)}"
        )
    if dispatch.on_cpu(hidden):
        return checked_classes(draw_rows(_logits_of_rows(hidden, weight, bias, codes, draws), draws))
    from unmask_kernels.triton.head import draw_on_gpu  # only CUDA builds of torch bring Triton

    return checked_classes(draw_on_gpu(hidden, weight, bias, codes, draws))


def draw_from_hidden_reference(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, codes: Tensor, draws: Draws
) -> Tensor:
    """Return the class of every row, int64 [N], with all logits in memory: the oracle of every other form.

    Every row must have a candidate and no NaN or +inf.
    """
    logits = hidden.to(weight.dtype).float() @ weight.float().T
    if bias is not None:
        logits = logits + bias.float()
    return draw_reference(logits, codes, draws)


def _logits_of_rows(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, codes: Tensor, draws: Draws
) -> Iterator[RowLogits]:
    """Compute the consistent logits of hidden [N, H]; those of at most DENSE_ROWS rows are in memory.

    Every product is of a matrix and one row, and which matrix depends on the row's own revealed digits and offsets
    alone: so its bits do not depend on the other rows.
    """
    consistent = consistent_classes(codes)
    # each at an address of its own: bits may depend on that
    rows = [row.clone() for row in hidden.to(weight.dtype).float()]
    dense: list[tuple[int, Classes]] = []
    for row, digits in enumerate(draws.revealed.tolist()):
        classes = consistent.of(digits)
        if draws.offsets and (offsets := draws.offsets[row]) is not None:
            classes = offsets.left_of(classes)
        if len(classes) > DENSE_SHARE * len(codes):
            dense.append((row, classes))
        else:
            index = torch.from_numpy(classes)
            logits = torch.mv(weight[index].float(), rows[row])
            logits = logits if bias is None else logits.add_(bias[index])
            yield _offset(RowLogits(row, classes, logits.numpy()), draws)
        if dense and (len(dense) == DENSE_ROWS or row == len(rows) - 1):
            every = _dense_logits([rows[number] for number, _ in dense], weight, bias).numpy()
            for (number, some), values in zip(dense, every, strict=True):
                found = RowLogits(number, some, values if len(some) == len(weight) else values[some])
                yield _offset(found, draws)
            dense = []


def _offset(found: RowLogits, draws: Draws) -> RowLogits:
    """The logits of a row with what is added to them."""
    offsets = draws.offsets[found.row] if draws.offsets else None
    return found if offsets is None else found._replace(logits=offsets.added_to(found.logits, found.classes))


def _dense_logits(rows: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the logits of all classes, float32 [rows, C]."""
    logits = torch.empty(len(rows), len(weight))
    size = max(1, WEIGHT_BLOCK // weight.shape[1])
    for start in range(0, len(weight), size):
        block = weight[start : start + size].float()
        for row, values in zip(rows, logits, strict=True):
            torch.mv(block, row, out=values[start : start + size])
    return logits if bias is None else logits.add_(bias)
