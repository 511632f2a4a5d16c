"""The draw of one class a row: checks, the dispatch and the errors."""

import torch
from torch import Tensor

from unmask_kernels.categorical.blocks import Rows, draw_in_blocks
from unmask_kernels.errors import InvalidLogitsError, NoCandidateError


@torch.no_grad()
def draw(
    logits: Tensor,
    revealed: Tensor,
    codes: Tensor,
    seeds: Tensor,
    events: Tensor,
    temperature: Tensor | float,
    *,
    top_k: Tensor | int | None = None,
    top_p: Tensor | float | None = None,
) -> Tensor:
    """Draw one class a row from the softmax of logits / temperature over the consistent classes.

    A row's class is a function of that row's arguments alone: not of its neighbours, nor of N. Gumbel-max with
    counter-based noise (Philox 4x32-10, tail to 2**-64); the maths is in this folder's README.

    Args:
        logits: [N, C], any floating dtype.
        revealed: int64 [N, l]; a digit above `codes.max()`, as the mask id is, means masked.
        codes: int64 [C, l], the digits of every class.
        seeds: int64 [N], one a request.
        events: int64 [N], which draw of the request this is.
        temperature: [N] or one number, finite and not negative; 0 = the most probable class (the first of
            equals), without noise.
        top_k: int64 [N] or one number, 0 = off: keep exactly k classes.
        top_p: [N] or one number, 1 = off: of these keep the likeliest until they hold this share, the crossing one
            included.

    Returns:
        int64 [N], class ids.

    Raises:
        NoCandidateError: some rows have no class of positive probability that agrees with their digits.
        InvalidLogitsError: some rows have NaN or +inf among the logits of their consistent classes. Both are
            DrawErrors, raised after the other rows were drawn, and carry their classes.
        ValueError: shapes that don't fit, or a temperature that is negative or not finite.
    """
    rows = _checked(logits, revealed, codes, seeds, events, temperature, top_k, top_p)
    if len(rows) == 0:
        return torch.empty_like(rows.seeds)
    classes, highest = draw_in_blocks(rows, codes)
    if not bool(highest.isfinite().all()):
        _raise_for_rows(classes, highest)
    return classes


def _checked(
    logits: Tensor,
    revealed: Tensor,
    codes: Tensor,
    seeds: Tensor,
    events: Tensor,
    temperature: Tensor | float,
    top_k: Tensor | int | None,
    top_p: Tensor | float | None,
) -> Rows:
    if logits.ndim != 2 or codes.ndim != 2 or logits.shape[1] != len(codes) or len(codes) == 0:
        msg = f"logits [N, C] and codes [C, l] don't fit: {list(logits.shape)} and {list(codes.shape)}"
        raise ValueError(msg)
    if revealed.shape != (len(logits), codes.shape[1]):
        msg = f"revealed must be [{len(logits)}, {codes.shape[1]}], not {list(revealed.shape)}"
        raise ValueError(msg)
    if seeds.dtype != torch.int64 or events.dtype != torch.int64:
        msg = f"seeds and events must be int64, not {seeds.dtype} and {events.dtype}"
        raise ValueError(msg)
    given = {"seeds": seeds, "events": events, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    for name, value in given.items():
        if isinstance(value, Tensor) and value.ndim and value.shape != (len(logits),):
            msg = f"{name} must be [{len(logits)}], not {list(value.shape)}"
            raise ValueError(msg)
    heat = _a_row_each(logits, temperature, torch.float64)
    most = _a_row_each(logits, 0 if top_k is None else top_k, torch.int64)
    share = _a_row_each(logits, 1 if top_p is None else top_p, torch.float64)
    if not bool((heat.isfinite() & (heat >= 0)).all()):
        msg = f"temperatures must be finite and not negative: {heat.tolist()}"
        raise ValueError(msg)
    return Rows(logits, revealed, seeds, events, heat, most, share)


def _a_row_each(logits: Tensor, value: Tensor | float, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(value, dtype=dtype, device=logits.device).expand(len(logits))


def _raise_for_rows(classes: Tensor, highest: Tensor) -> None:
    """Raise the error of the rows whose highest consistent logit is not a finite number."""
    empty = highest == -torch.inf
    invalid = ~highest.isfinite() & ~empty
    classes = classes.masked_fill(empty | invalid, -1)
    kind = InvalidLogitsError if bool(invalid.any()) else NoCandidateError
    raise kind(empty.nonzero()[:, 0].tolist(), invalid.nonzero()[:, 0].tolist(), classes)


__all__ = ["draw"]
