"""Warnings about given tokens that training has never met: the model does not know what they mean."""

from collections.abc import Sequence

from unmask_diffusion.plan import Plan

# a part of the canvas is worth a warning where more than this share of its tokens, and at least so many, are untrained
WARNED_SHARE, WARNED_TOKENS = 1 / 4, 2


def untrained_warnings(plan: Plan, trained: Sequence[int] | None) -> list[str]:
    """A sentence for each part of the canvas, if any, in which training has never met many of the given tokens.

    Args:
        plan: the plan of the request.
        trained: for each token id whether training has met it; None: not known.
    """
    if trained is None:
        return []
    start, stop = plan.generated.start, plan.generated.stop
    # tokens are given in the answer itself only where the request has a canvas
    parts = {"prompt": plan.canvas[:start], "canvas": plan.canvas[start:stop], "suffix": plan.canvas[stop:]}
    warnings = []
    for name, part in parts.items():
        given = [token for token in part if token is not None]
        untrained = sum(not trained[token] for token in given)
        if untrained >= WARNED_TOKENS and untrained > WARNED_SHARE * len(given):
            warnings.append(f"{untrained} of {len(given)} {name} tokens are outside what this model was trained on")
    return warnings
