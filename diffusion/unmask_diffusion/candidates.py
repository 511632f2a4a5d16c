"""What intermediate tokens may still become. For display only: nothing that is drawn depends on it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, islice

import torch
from torch import Tensor
from unmask_kernels import agrees, consistent_log_softmax

from unmask_diffusion.drawing import Drawn, Lane
from unmask_diffusion.log import Candidates, Reveal
from unmask_diffusion.model import Model

# tokens whose logits are in memory together: the head's product fills so many rows in any case
TOKENS_AT_ONCE = 64


@dataclass(frozen=True, eq=False, slots=True)
class Intermediate:
    """A token whose candidates are wanted."""

    row: int  # of the features from which its newest digits were drawn
    position: int  # in the canvas
    digits: Tensor  # int64 [l], with the newest
    most: int  # number of candidates wanted


def candidates_of_reveals(
    model: Model, features: Tensor, decided: Sequence[tuple[Sequence[Lane], Sequence[Drawn], int]]
) -> list[tuple[tuple[Candidates, ...], ...]]:
    """Find the candidates of tokens that a reveal touched and left intermediate: by sample, reveal and position.

    Args:
        model: the model.
        features: [N, F], which the rows of the lanes index.
        decided: for each sample its lanes, what is certain of what was drawn at them, and the number of candidates
            wanted of a token.
    """
    tokens = [
        [
            [*_intermediate(model, lane, drawn, most)] if most else []
            for lane, drawn in zip(lanes, kept, strict=False)
            if isinstance(drawn, Reveal)
        ]
        for lanes, kept, most in decided
    ]
    in_order = [token for of_sample in tokens for of_reveal in of_sample for token in of_reveal]
    parts = (in_order[start : start + TOKENS_AT_ONCE] for start in range(0, len(in_order), TOKENS_AT_ONCE))
    found = iter([each for part in parts for each in _of_part(model, features, part)])
    return [tuple(tuple(islice(found, len(of_reveal))) for of_reveal in of_sample) for of_sample in tokens]


def _intermediate(model: Model, lane: Lane, reveal: Reveal, most: int) -> Iterator[Intermediate]:
    """The tokens that a lane's reveal touches and leaves with masked digits, ascending."""
    canvas = lane.after(reveal).canvas
    touched = sorted({position for position, _, _ in reveal.sub_tokens})
    masked = (canvas[touched] == model.sub_tokenizer.mask_id).any(1).tolist()
    for position in compress(touched, masked):
        yield Intermediate(lane.rows[position], position, canvas[position], most)


def _of_part(model: Model, features: Tensor, tokens: Sequence[Intermediate]) -> list[Candidates]:
    codes = model.sub_tokenizer.codes_on(features.device)
    digits = torch.stack([token.digits for token in tokens]).to(features.device)
    logits = model.denoiser.head(features[[token.row for token in tokens]])
    left: list[int] = agrees(digits, codes).sum(1).tolist()
    probabilities = consistent_log_softmax(logits, digits, codes).exp()
    ordered = probabilities.sort(dim=1, descending=True, stable=True)
    most = max(token.most for token in tokens)
    likeliest = zip(ordered.indices[:, :most].tolist(), ordered.values[:, :most].tolist(), strict=True)
    return [
        Candidates(token.position, count, _possible(token.most, *classes))
        for token, count, classes in zip(tokens, left, likeliest, strict=True)
    ]


def _possible(most: int, classes: list[int], probabilities: list[float]) -> tuple[tuple[int, float], ...]:
    """The first pairs, without those of probability 0."""
    return tuple(pair for pair in list(zip(classes, probabilities, strict=True))[:most] if pair[1] > 0)
