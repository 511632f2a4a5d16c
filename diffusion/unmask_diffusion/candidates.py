"""What intermediate tokens may still become. For display only: nothing that is drawn depends on it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

import torch
from torch import Tensor
from unmask_kernels import Offsets, agrees, consistent_log_softmax, restricted, to_device

from unmask_diffusion.drawing import Drawn, Lane, take_rows
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
    offsets: Offsets | None  # of the position
    found: list[Candidates]  # of its reveal; the token's are appended


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
    found: list[list[list[Candidates]]] = []
    tokens: list[Intermediate] = []
    for lanes, kept, most in decided:
        of_sample: list[list[Candidates]] = []
        found.append(of_sample)
        for lane, drawn in zip(lanes, kept, strict=False):
            if isinstance(drawn, Reveal):
                of_sample.append([])
                if most:
                    tokens += _intermediate(model, lane, drawn, most, of_sample[-1])
    for start in range(0, len(tokens), TOKENS_AT_ONCE):
        _find(model, features, tokens[start : start + TOKENS_AT_ONCE])
    return [tuple(map(tuple, of_sample)) for of_sample in found]


def _intermediate(
    model: Model, lane: Lane, reveal: Reveal, most: int, found: list[Candidates]
) -> Iterator[Intermediate]:
    """The tokens that a lane's reveal touches and leaves with masked digits, ascending."""
    canvas = lane.after(reveal).canvas
    touched = sorted({position for position, _, _ in reveal.sub_tokens})
    masked = (canvas[touched] == model.sub_tokenizer.mask_id).any(1).tolist()
    for position in compress(touched, masked):
        offsets = lane.plan.offsets_at(position)
        yield Intermediate(lane.rows[position], position, canvas[position], most, offsets, found)


def _find(model: Model, features: Tensor, tokens: Sequence[Intermediate]) -> None:
    codes = model.sub_tokenizer.codes_on(features.device)
    (digits,) = to_device([torch.stack([token.digits for token in tokens])], features.device)
    offsets = [token.offsets for token in tokens]
    logits = restricted(model.denoiser.head(take_rows(features, [token.row for token in tokens])), offsets)
    left: list[int] = restricted(agrees(digits, codes).float().log(), offsets).exp().sum(1).int().tolist()
    ordered = consistent_log_softmax(logits, digits, codes).exp().sort(dim=1, descending=True, stable=True)
    most = max(token.most for token in tokens)
    classes, probabilities = (each[:, :most].tolist() for each in (ordered.indices, ordered.values))
    for row, token in enumerate(tokens):
        pairs = zip(classes[row][: token.most], probabilities[row][: token.most], strict=True)
        likeliest = [pair for pair in pairs if pair[1] > 0]
        token.found.append(Candidates(token.position, left[row], tuple(likeliest)))
