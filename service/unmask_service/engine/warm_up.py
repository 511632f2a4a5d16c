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


def measured_capacity(model: Model, tokens_per_tick: int) -> Capacity:
    """Time three evaluations of the longest canvas: alone, alone with a wide group, among others."""
    length = model.denoiser.length
    tokens = max(1, length - 1)
    canvases = max(1, min(MOST_CANVASES, min(MOST_TOKENS, tokens_per_tick) // length))
    one, *others = samples_to_try(model, tokens, canvases)
    (wide,) = samples_to_try(model, tokens, 1, groups=-(-tokens // MOST_ROWS))
    check_model(model)  # what is done for the first time takes longer
    pace = first_pace(
        one=_seconds(model, [one]),
        wide=_seconds(model, [wide]),
        many=_seconds(model, [one, *others]) if others else 0.0,
        tokens=one.plan.length,
        canvases=canvases,
        rows=len({sub_token // model.sub_tokenizer.sub_tokens_per_token for sub_token in wide.next_group}),
    )
    return Capacity(tokens_per_tick, pace)


def _seconds(model: Model, samples: Sequence[ActiveSample]) -> float:
    begun = time.perf_counter()
    evaluate(model, samples)
    return time.perf_counter() - begun
