"""An evaluation that fails is the fault of a sample, or of the model: finding out which."""

import logging
from collections.abc import Sequence

from unmask_diffusion import ActiveSample, GenerationRequest, Model, Reveal, SampleError, Sampler, evaluate, make_plan

logger = logging.getLogger(__name__)


class BrokenModelError(RuntimeError):
    """The model cannot evaluate even a canvas of its own: no request is to blame."""


def evaluate_apart(model: Model, samples: Sequence[ActiveSample]) -> list[Reveal | SampleError]:
    """Evaluate samples together; if that raises, halves of them, until those that make it raise are alone.

    A sample's outcome does not depend on its company, so nobody notices but by the time.

    Raises:
        BrokenModelError: whatever is evaluated raises.
    """
    try:
        return evaluate(model, samples)
    except Exception as error:
        if len(samples) == 1:
            check_model(model)
            logger.exception("the network evaluation of one sample failed; its generation ends with an error")
            return [SampleError(samples[0].index, "the network evaluation failed", impossible=False)]
        logger.warning("an evaluation of %d samples failed and is done in parts: %r", len(samples), error)
    middle = len(samples) // 2
    return evaluate_apart(model, samples[:middle]) + evaluate_apart(model, samples[middle:])


def check_model(model: Model) -> None:
    """Evaluate a canvas as short as the model takes.

    Raises:
        BrokenModelError: that raises.
    """
    try:
        evaluate(model, samples_to_try(model, tokens=1, count=1))
    except Exception as error:
        raise BrokenModelError(f"the model cannot evaluate anything: {error!r}") from error


def samples_to_try(model: Model, tokens: int, count: int, groups: int | None = None) -> list[ActiveSample]:
    """Samples of so many tokens to generate before their first reveal.

    A token is given where there is room for it: a blank canvas may be known without an evaluation.
    """
    given = [0] if tokens < model.denoiser.length else []
    request = GenerationRequest(prompt=given, max_tokens=tokens, n=count, seed=0, sampler=Sampler(steps=groups))
    plan = make_plan(model, request)
    return [ActiveSample.start(model, plan, index) for index in range(count)]
