"""What a request says about the classes of its holes: sets on the canvas, and logit_bias.

A set says that a token is one of some classes. Only these are candidates, whatever digits are revealed, so the token is
in the set in the end: with digits revealed, candidates are the members that agree with them, and there is always one,
because each digit was drawn from members. Digits that all members share are drawn like others, with certainty.
"""

from collections.abc import Mapping, Sequence

from unmask_kernels import Offsets

from unmask_diffusion.model import Outline
from unmask_diffusion.request import check_ids

# position → token ids, ascending
Sets = dict[int, tuple[int, ...]]


def read_canvas(model: Outline, entries: Sequence[int | list[int] | None]) -> tuple[tuple[int | None, ...], Sets]:
    """Split a canvas into given tokens, None for holes, and the sets of holes; a set of one id is a given token.

    Raises:
        RequestError: an id is too large.
    """
    check_ids(model, "canvas", [token for token in entries if isinstance(token, int)])
    canvas: list[int | None] = []
    sets: Sets = {}
    for position, entry in enumerate(entries):
        if isinstance(entry, list):
            check_ids(model, "canvas", entry)
            members = tuple(sorted(set(entry)))
            if len(members) > 1:
                sets[position] = members
            canvas.append(members[0] if len(members) == 1 else None)
        else:
            canvas.append(entry)
    return tuple(canvas), sets


def check_bias(model: Outline, bias: Mapping[int, float] | None) -> None:
    """Check the ids of a logit_bias. Raises RequestError: one is too large."""
    check_ids(model, "logit_bias", list(bias or ()))


def offsets_of(bias: Mapping[int, float], members: Sequence[int] | None) -> Offsets | None:
    """What is added to the logits of a hole, and the classes that it is restricted to; None where nothing is said."""
    if members is not None:
        return Offsets({token: bias.get(token, 0.0) for token in members}, only=True)
    values = {token: value for token, value in bias.items() if value}
    return Offsets(values, only=False) if values else None
