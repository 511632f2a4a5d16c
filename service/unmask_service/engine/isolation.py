"""Finding out whether a failed evaluation is the fault of one unit of work, or of the model."""

import logging
from collections.abc import Sequence

from unmask_diffusion import (
    ActiveSample,
    GenerationRequest,
    Model,
    Outcome,
    Phase,
    SampleError,
    Sampler,
    Work,
    evaluate,
    make_plan,
)

logger = logging.getLogger("unmask")


class BrokenModelError(RuntimeError):
    """The model cannot evaluate even a canvas of its own: no request is to blame."""


def evaluate_apart(model: Model, works: Sequence[Work], budgets: Sequence[int], phase: Phase) -> list[Outcome]:
    """Evaluate work together; if that raises, halves of it, until the culprits are alone.

    An outcome does not depend on the other work, so only time is lost. Work that is alone is tried again with one
    canvas: drafts may lead to states that a sample never reaches. Raises BrokenModelError: every evaluation raises.
    """
    try:
        return evaluate(model, works, budgets, phase)
    except Exception as error:
        if [*budgets] == [1]:
            check_model(model)
            logger.exception("a network evaluation failed for one sample; its request ends with an error")
            failure = SampleError(works[0].index, "the network evaluation failed", impossible=False)
            return [Outcome((failure,), states=1, steps=0)]
        logger.warning("an evaluation of %d samples failed and is repeated in parts: %r", len(works), error)
    if len(works) == 1:
        return evaluate_apart(model, works, [1], phase)
    middle = len(works) // 2
    halves = ((works[:middle], budgets[:middle]), (works[middle:], budgets[middle:]))
    return [outcome for half in halves for outcome in evaluate_apart(model, *half, phase)]


def check_model(model: Model) -> None:
    """Evaluate a canvas as short as the model takes. Raises BrokenModelError: that raises."""
    try:
        evaluate(model, samples_to_try(model, tokens=1, count=1))
    except Exception as error:
        raise BrokenModelError(f"the model cannot evaluate anything: {error!r}") from error


def samples_to_try(model: Model, tokens: int, count: int, steps: int | None = None) -> list[ActiveSample]:
    """Samples with so many tokens to generate before their first reveal.

    A token is given where there is room for it: a blank canvas may be known without an evaluation. Steps are equal: a
    model's own clock would make the first ones small.
    """
    room = model.denoiser.length - tokens
    given = room if model.image is not None else min(1, room)  # the canvas of a picture is whole
    canvas: list[int | list[int] | None] = [*[0] * given, *[None] * tokens]
    request = GenerationRequest(canvas=canvas, n=count, seed=0, sampler=Sampler(steps=steps, clock=1))
    plan = make_plan(model, request)
    return [ActiveSample.start(model, plan, index) for index in range(count)]
