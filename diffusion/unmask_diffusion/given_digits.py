"""A canvas that is given as digits with holes: tokens may be given, masked, or partly given."""

from collections.abc import Sequence

import torch

from unmask_diffusion.model import Outline
from unmask_diffusion.request import RequestError

GivenDigit = tuple[int, int, int]  # position, j, digit


def read_sub_tokens(
    model: Outline, rows: Sequence[Sequence[int | None]]
) -> tuple[tuple[int | None, ...], tuple[GivenDigit, ...]]:
    """Split digits with holes into given tokens and the digits of partly given ones.

    Args:
        model: the model whose digits they are.
        rows: for each token its l digits, None where one is masked.

    Returns:
        The canvas, token ids with None for masked and partly given tokens; the digits of the latter, ascending.

    Raises:
        RequestError: there are too many tokens, or too many or too few digits of one, or they name no class.
    """
    limit, table = model.denoiser.length, model.sub_tokenizer
    if len(rows) > limit:
        raise RequestError("sub_tokens", f"sub_tokens has {len(rows)} tokens; the model's length is {limit}")
    for position, row in enumerate(rows):
        _check_row(position, row, table.sub_tokens_per_token, table.base)
    digits = torch.tensor([[table.mask_id if digit is None else digit for digit in row] for row in rows])
    for row in digits.unique(dim=0):
        if not bool(((row == table.mask_id) | (table.codes == row)).all(-1).any()):
            position = int((digits == row).all(-1).nonzero()[0])
            raise RequestError(
                "sub_tokens", f"sub_tokens.{position} is {list(rows[position])}: no token has these digits"
            )
    known = digits != table.mask_id
    canvas: list[int | None] = [None] * len(rows)
    complete = known.all(-1).nonzero().flatten()
    for position, token in zip(complete.tolist(), table.decode(digits[complete]).tolist(), strict=True):
        canvas[position] = token
    partly = (known & ~known.all(-1, keepdim=True)).nonzero().tolist()
    return tuple(canvas), tuple((position, j, int(digits[position, j])) for position, j in partly)


def _check_row(position: int, row: Sequence[int | None], digits_a_token: int, base: int) -> None:
    if len(row) != digits_a_token:
        counted = f"{len(row)} digit{'' if len(row) == 1 else 's'}"
        raise RequestError(
            "sub_tokens", f"sub_tokens.{position} has {counted}; a token of this model has {digits_a_token}"
        )
    worst = max((digit for digit in row if digit is not None), default=0)
    if worst >= base:
        raise RequestError("sub_tokens", f"sub_tokens.{position} holds digit {worst}; the model's are 0 … {base - 1}")
