"""Exact speculation: draft the next reveals, evaluate the states that they lead to, keep what was right.

The schedule is known beforehand and a draw is a pure function of (logits, seed, sample, sub-token). So the logits at
hand say, with the very noise that will decide, what the next steps will probably reveal. A *lane* is one state of one
sample in an evaluation: the state of the log, or one that the first drafts lead to from there. The network does not ask
what time it is, so lanes at different noise levels share an evaluation like samples do, and what is accepted is the
sequential sampler's log, bit for bit (`accept` has the proof). docs/speculation.md explains the idea.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from torch import Tensor

from unmask_diffusion.drawing import Drawn, Lane, Place, draw_places, join, places_of
from unmask_diffusion.log import Reveal, SampleError
from unmask_diffusion.model import Model


def accept(drafts: Sequence[Reveal], drawn: Sequence[Drawn]) -> list[Drawn]:
    """Keep what was drawn at the lanes whose states are the sequential sampler's.

    Lane 0 is the state S_0 of the log, and lane i the state that drafts 0 … i-1 lead to from there.
    Claim: what is returned is what the sequential sampler, evaluating one state after the other, draws next.
    Proof by induction. Lane 0's state is the log's, so what it draws, d_0, is sequential: a draw is a function of
    (state, seed, sample, step) alone, and bits do not depend on the other lanes. Let the states of lanes 0 … i and so
    their draws be the sequential ones. If draft i equals d_i, then lane i+1's state, lane i's with draft i revealed, is
    lane i's with d_i revealed: the sequential sampler's next state, and so d_{i+1} its next draw. If it does not, or
    d_i is an error, nothing is claimed of the lanes behind it, and they are dropped. ∎

    Nothing is required of the drafts: wrong ones cost time, not truth. The argument holds for every schedule (a step is
    one draft), temperature, filter and denoiser.

    Args:
        drafts: at least one less than there are lanes.
        drawn: what was drawn at each lane.

    Returns:
        At least one entry, if there are lanes; an error can only be the last.
    """
    right = 0
    while right + 1 < len(drawn) and drafts[right] == drawn[right]:
        right += 1
    return list(drawn[: right + 1])


def draft(
    model: Model, features: Tensor, decided: Sequence[tuple[Sequence[Lane], Sequence[Drawn], int]]
) -> list[tuple[Reveal, ...]]:
    """Draft what follows each sample's newest certain reveal, with the noise that will decide it.

    A position whose digits belong to several steps is drawn once a step, each time with the digits that the earlier
    ones drafted: such positions wait for a later draw, all others are drawn at once.

    Args:
        model: the model.
        features: [N, F], which the rows of the lanes index.
        decided: for each sample its lanes, what is certain of what was drawn at them, and the number of steps to draft.
    """
    ahead = []
    turns: list[list[Place]] = []
    for lanes, kept, count in decided:
        steps = _steps_ahead(lanes, kept, count, model.sub_tokenizer.mask_id)
        ahead.append(steps)
        seen: Counter[int] = Counter()
        for place in chain.from_iterable(steps):
            if seen[place.position] == len(turns):
                turns.append([])
            turns[seen[place.position]].append(place)
            seen[place.position] += 1
    for places in turns:
        draw_places(model, features, places)
        for place in places:
            if isinstance(place.drawn, list):
                for j in place.js:
                    place.lane.canvas[place.position, j] = place.drawn[j]
    drafts = []
    for steps in ahead:
        found: list[Reveal] = []
        for places in steps:
            drawn = join(places)
            if isinstance(drawn, SampleError):
                break
            found.append(drawn)
        drafts.append(tuple(found))
    return drafts


def _steps_ahead(lanes: Sequence[Lane], kept: Sequence[Drawn], count: int, mask_id: int) -> list[list[Place]]:
    """The places of the steps behind the last certain one, drawn from its features on a canvas that they share."""
    if not count or not kept or isinstance(newest := kept[-1], SampleError):
        return []
    lane = lanes[len(kept) - 1]
    after = lane.after(newest)
    ahead = range(after.step, min(after.step + count, len(after.steps)))
    return [places_of(Lane(lane.plan, lane.sample, step, after.canvas, lane.rows), mask_id) for step in ahead]
