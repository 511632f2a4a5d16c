"""Joint logits → log-probabilities over the classes that agree with the revealed digits."""

import torch
from torch import Tensor

from unmask_kernels import dispatch
from unmask_kernels.consistency import agrees, consistent_classes


def consistent_log_softmax(
    logits: Tensor,  # [N, C], any floating dtype; computed in float32 at least
    revealed: Tensor,  # int64 [N, l]; a digit above `codes.max()`, as the mask id is, means masked
    codes: Tensor,  # int64 [C, l], the digits of every class
) -> Tensor:
    """Return log-probabilities over the classes that agree with the revealed digits.

    [N, C], float32 (float64 for float64 logits); -inf where a class contradicts a revealed digit. A row without a
    candidate is -inf throughout. NaN or +inf among a row's consistent logits make these NaN.
    """
    if logits.shape != (len(revealed), len(codes)) or revealed.shape[1:] != codes.shape[1:] or codes.ndim != 2:
        shapes = [list(each.shape) for each in (logits, revealed, codes)]
        raise ValueError("logits [N, C], revealed [N, l] and codes [C, l] don't fit: {}, {} and {}".format(*shapes))
    if dispatch.by_triton(logits):
        from unmask_kernels.triton.log_softmax import log_softmax_in_tiles  # only CUDA builds of torch bring Triton

        return log_softmax_in_tiles(logits, revealed, codes)
    if not dispatch.on_cpu(logits):
        return consistent_log_softmax_reference(logits, revealed, codes)
    wide, consistent = _wide(logits), consistent_classes(codes)
    result = torch.full_like(wide, -torch.inf)
    for row, digits in enumerate(revealed.tolist()):
        classes = torch.from_numpy(consistent.of(digits))
        some = wide[row, classes]
        if not bool((some == -torch.inf).all()):  # log_softmax of these would be NaN
            result[row, classes] = some.log_softmax(0)
    return result


def consistent_log_normaliser(logits: Tensor, revealed: Tensor, codes: Tensor) -> Tensor:
    """Return the logarithm of the sum of exp(logit) over the classes that agree with the revealed digits.

    Arguments are those of `consistent_log_softmax`. The normaliser with a digit revealed, minus the one without, is the
    logarithm of the digit's probability.

    [N], float32 (float64 for float64 logits); -inf for a row without a candidate, NaN or inf where a consistent logit
    is NaN or +inf. A row's bits do not depend on the other rows.
    """
    if dispatch.on_cpu(logits):
        wide, consistent = _wide(logits), consistent_classes(codes)
        result = wide.new_full((len(wide),), -torch.inf)
        for row, digits in enumerate(revealed.tolist()):
            found = consistent.of(digits)
            if len(found):
                some = wide[row] if found is consistent.every else wide[row, torch.from_numpy(found)]
                result[row] = some.logsumexp(0)
        return result
    # row by row the same bits in any batch, which a sum over [N, C] need not be
    log_probabilities = consistent_log_softmax(logits, revealed, codes)
    greatest, classes = log_probabilities.max(1)
    normaliser = logits.to(greatest.dtype).gather(1, classes[:, None])[:, 0] - greatest
    return torch.where(greatest == -torch.inf, greatest, normaliser)


def consistent_log_softmax_reference(logits: Tensor, revealed: Tensor, codes: Tensor) -> Tensor:
    """Return what `consistent_log_softmax` does, with the [N, C] mask in memory: the oracle of every other form."""
    consistent = agrees(revealed, codes)
    filtered = _wide(logits).masked_fill(~consistent, -torch.inf)
    empty = (filtered == -torch.inf).all(1, keepdim=True)
    # log_softmax of a row with NaN is NaN in its inconsistent classes too, and NaN without a candidate
    return filtered.log_softmax(1).masked_fill(~consistent | empty, -torch.inf)


def consistent_log_normaliser_reference(logits: Tensor, revealed: Tensor, codes: Tensor) -> Tensor:
    """Return what `consistent_log_normaliser` does, with the [N, C] mask in memory."""
    return _wide(logits).masked_fill(~agrees(revealed, codes), -torch.inf).logsumexp(1)


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
