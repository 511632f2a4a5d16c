"""How fast the model is on this machine, before the first request comes."""

import time
from collections.abc import Sequence

from unmask_diffusion import ActiveSample, Model, evaluate

from unmask_service.engine.isolation import check_model, samples_to_try
from unmask_service.forecast import Capacity, first_pace

# tokens of all canvases together, so that a large model is ready soon
MOST_TOKENS = 1024
MOST_CANVASES = 8
# wide enough to see what a row of logits costs
MOST_ROWS = 32
# a small model is timed so often, a large one until this is spent
MOST_TURNS = 7
ENOUGH_SECONDS = 0.5


def measured_capacity(model: Model, tokens_per_tick: int) -> Capacity:
    """Time three evaluations of the longest canvas: alone, alone with a wide group, among others.

    What disturbs them is left out: each is done a few times in turn, and the fastest counts. It matters, since the cost
    of a canvas more decides how many lanes pay, and a server of one client would never learn better.
    """
    length = model.denoiser.length
    tokens = max(1, length - 1)
    canvases = max(1, min(MOST_CANVASES, min(MOST_TOKENS, tokens_per_tick) // length))
    one, *others = samples_to_try(model, tokens, canvases)
    (wide,) = samples_to_try(model, tokens, 1, groups=-(-tokens // MOST_ROWS))
    check_model(model)  # what is done for the first time takes longer
    alone, group, together = _fastest(model, [[one], [wide], [one, *others]])
    pace = first_pace(
        one=alone,
        wide=group,
        many=together,
        tokens=one.plan.length,
        canvases=canvases,
        rows=len({sub_token // model.sub_tokenizer.sub_tokens_per_token for sub_token in wide.next_group}),
    )
    return Capacity(tokens_per_tick, pace)


def _fastest(model: Model, turns: Sequence[Sequence[ActiveSample]]) -> list[float]:
    """The seconds that each evaluation takes at least."""
    seconds = [float("inf")] * len(turns)
    begun = time.perf_counter()
    for _ in range(MOST_TURNS):
        for i, samples in enumerate(turns):
            started = time.perf_counter()
            evaluate(model, samples)
            seconds[i] = min(seconds[i], time.perf_counter() - started)
        if time.perf_counter() - begun > ENOUGH_SECONDS:
            break
    return seconds
