"""Log-probabilities of what is revealed, for requests that ask for them: nothing that is drawn depends on them.

They are the model's own: at temperature 1, without top_k, top_p and logit_bias, and from one prediction, also where a
step was drawn from two. A sub-token's is that of its marginal given what is known at its reveal: digits, and the set of
its token. Digits of one token that a step
reveals together are drawn jointly, so each of them is given those before it, and their sum is the joint one. Digits of
different tokens in a step are drawn independently. So the sum over a sample is the log-probability of what was revealed
along its order: of the sampler itself, at temperature 1 without filters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor
from unmask_kernels import Offsets, consistent_log_normaliser, consistent_log_softmax, restricted

from unmask_diffusion.drawing import Drawn, Lane
from unmask_diffusion.log import Likeliest, Reveal
from unmask_diffusion.model import Model

# tokens whose logits are in memory together: the head's product fills so many rows in any case
TOKENS_AT_ONCE = 64


@dataclass(frozen=True, eq=False, slots=True)
class Touched:
    """A token of which a step reveals some digits."""

    row: int  # of the features
    position: int  # in the canvas
    before: Tensor  # int64 [l], its digits before the step
    revealed: tuple[tuple[int, int], ...]  # (j, digit)
    most: int  # number of likeliest classes wanted
    offsets: Offsets | None  # of the position


# log-probabilities of the revealed digits, and the likeliest classes
Read = tuple[tuple[float, ...], Likeliest]


def with_log_probabilities(
    model: Model, features: Tensor, decided: Sequence[tuple[Sequence[Lane], Sequence[Drawn]]]
) -> list[list[Drawn]]:
    """Add log-probabilities to the reveals of requests that ask for them.

    Args:
        model: the model.
        features: [N, F], which the rows of the lanes index.
        decided: for each sample its lanes, and what is certain of what was drawn at them.

    Returns:
        What is certain, for each sample.
    """
    touched = {
        (sample, number): _touched(model, lane, drawn)
        for sample, (lanes, kept) in enumerate(decided)
        if lanes and lanes[0].plan.request.logprobs is not None
        for number, (lane, drawn) in enumerate(zip(lanes, kept, strict=False))
        if isinstance(drawn, Reveal)
    }
    tokens = [token for own in touched.values() for token in own]
    parts = (tokens[start : start + TOKENS_AT_ONCE] for start in range(0, len(tokens), TOKENS_AT_ONCE))
    read = (each for part in parts for each in _read(model, features, part))
    result = [list(kept) for _, kept in decided]
    for (sample, number), own in touched.items():
        values: list[float] = []
        likeliest: list[tuple[int, Likeliest]] = []
        for token, (of_digits, classes) in zip(own, read, strict=False):
            values += of_digits
            likeliest += [(token.position, classes)] if classes else []
        drawn = result[sample][number]
        assert isinstance(drawn, Reveal)  # noqa: S101 — for the type checker
        result[sample][number] = replace(drawn, log_probabilities=tuple(values), likeliest=tuple(likeliest))
    return result


def _touched(model: Model, lane: Lane, reveal: Reveal) -> list[Touched]:
    """The tokens of a reveal, in its order."""
    tokens = []
    for position, group in groupby(reveal.sub_tokens, key=lambda sub_token: sub_token[0]):
        before = lane.canvas[position]
        first = int((before != model.sub_tokenizer.mask_id).sum()) == lane.plan.digits_given[position]
        most = (lane.plan.request.logprobs or 0) if first else 0
        revealed = tuple((j, digit) for _, j, digit in group)
        tokens.append(Touched(lane.rows[position], position, before, revealed, most, lane.plan.offsets_at(position)))
    return tokens


def _read(model: Model, features: Tensor, tokens: Sequence[Touched]) -> list[Read]:
    codes = model.sub_tokenizer.codes_on(features.device)
    logits = model.denoiser.head(features[[token.row for token in tokens]]).double()
    logits = restricted(logits, [token.offsets for token in tokens])
    digits = torch.stack([token.before for token in tokens]).to(features.device)
    likeliest: list[Likeliest] = [()] * len(tokens)
    if asking := [i for i, token in enumerate(tokens) if token.most]:
        ordered = consistent_log_softmax(logits[asking], digits[asking], codes).sort(
            dim=1, descending=True, stable=True
        )
        for row, i in enumerate(asking):
            classes, values = (each[row, : tokens[i].most].tolist() for each in (ordered.indices, ordered.values))
            likeliest[i] = tuple(pair for pair in zip(classes, values, strict=True) if pair[1] > -torch.inf)
    whole = consistent_log_normaliser(logits, digits, codes)
    of_digits: list[list[float]] = [[] for _ in tokens]
    for turn in range(max(len(token.revealed) for token in tokens)):
        rows = [i for i, token in enumerate(tokens) if turn < len(token.revealed)]
        for i in rows:
            j, digit = tokens[i].revealed[turn]
            digits[i, j] = digit
        part = consistent_log_normaliser(logits[rows], digits[rows], codes)
        # what is certain is certain, whatever the rounding
        for i, value in zip(rows, (part - whole[rows]).clamp(max=0).tolist(), strict=True):
            of_digits[i].append(value)
        whole[rows] = part
    return [*zip(map(tuple, of_digits), likeliest, strict=True)]
