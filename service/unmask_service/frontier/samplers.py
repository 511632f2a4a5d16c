"""The samplers that are compared: one table, a line each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from unmask_diffusion import Model, RequestError

Family = Literal["random order", "by certainty", "remasking", "model's own"]


@dataclass(frozen=True)
class Contender:
    """A sampler whose number of network evaluations can be set."""

    name: str
    family: Family
    sampler: Mapping[str, Any] = field(default_factory=dict)  # the field `sampler` of a request
    temperature: float = 1.0
    # Samplers that spend as many evaluations as they need have no `steps`: a field that bounds the error of a step, and
    # the values to try.
    bound: str | None = None
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Draw:
    """One point of the frontier: a sampler at one setting."""

    contender: str
    family: Family
    setting: str  # what sets its cost: "steps 16"
    request: Mapping[str, Any]  # the fields of a request: sampler, temperature


REFERENCE = "one at a time"
ENTROPIES = (0.1, 0.5, 2.0, 8.0)  # nats
# Groups at lower temperatures are what a sampler must beat whose samples are colder.
CONTENDERS = (
    Contender("groups", "random order"),
    Contender("groups at temperature 0.9", "random order", temperature=0.9),
    Contender("groups at temperature 0.8", "random order", temperature=0.8),
    Contender("groups with clock 1", "random order", {"clock": 1}),
    Contender("groups with clock 2", "random order", {"clock": 2}),
    Contender("groups with clock 3", "random order", {"clock": 3}),
    Contender("extrapolated groups", "random order", {"high_order": "extrapolation"}),
    Contender("extrapolated groups at temperature 0.9", "random order", {"high_order": "extrapolation"}, 0.9),
    Contender("groups in blocks of 8", "random order", {"block_length": 8}),
    Contender("whole tokens", "random order", {"unit": "token"}),
    Contender("ancestral", "random order", {"name": "ancestral"}),
    Contender("remasking cap 0.05", "remasking", {"name": "remasking", "rate": 0.05}),
    Contender("remasking cap 0.2", "remasking", {"name": "remasking", "rate": 0.2}),
    Contender("remasking cap 0.2 with clock 2", "remasking", {"name": "remasking", "rate": 0.2, "clock": 2}),
    Contender("remasking rescale 0.2", "remasking", {"name": "remasking", "schedule": "rescale", "rate": 0.2}),
    Contender("remasking loop 0.05", "remasking", {"name": "remasking", "schedule": "loop", "rate": 0.05}),
    Contender("remasking last digits cap 0.2", "remasking", {"name": "remasking", "rate": 0.2, "digits": "last"}),
    Contender("confidence", "by certainty", {"name": "confidence"}),
    Contender("confidence with fixed noise", "by certainty", {"name": "confidence", "noise": "position"}),
    Contender("margin", "by certainty", {"name": "margin"}),
    Contender("entropy", "by certainty", {"name": "entropy"}),
    Contender("entropy bounded", "by certainty", {"name": "entropy_bounded"}, bound="bound", values=ENTROPIES),
    Contender(
        "entropy bounded with fixed noise",
        "by certainty",
        {"name": "entropy_bounded", "noise": "position"},
        bound="bound",
        values=ENTROPIES,
    ),
    Contender("threshold", "by certainty", {"name": "threshold"}, bound="bound", values=(0.9, 0.7, 0.5)),
)


def draws_of(
    model: Model,
    evaluations: Sequence[int],
    names: Iterable[str] = (),
    recommended: Mapping[str, Any] | None = None,
) -> list[Draw]:
    """The points of a frontier.

    Args:
        model: what the samplers draw from.
        evaluations: budgets, network evaluations a sample.
        names: the contenders to take; all, if there are none.
        recommended: fields of a request that the model's author recommends: one more contender.

    Returns:
        First the exact sampler, one sub-token at a time; then each contender at each budget. Contenders that are the
        same as another one on this model are left out.

    Raises:
        RequestError: there is no contender of a name.
    """
    contenders = [*CONTENDERS, *_recommended(recommended)]
    if unknown := set(names) - {each.name for each in contenders}:
        known = ", ".join(each.name for each in contenders)
        raise RequestError("sampler", f"sampler {min(unknown)!r} is none of these: {known}")
    chosen = [each for each in contenders if (not names or each.name in names) and _differs(model, each)]
    found = [Draw(REFERENCE, "random order", "exact", {"sampler": {}, "temperature": 1.0})]
    # the smallest budgets of all samplers come first: they are cheap, and an interrupted run can compare something
    for place in range(max((len(_settings(each, evaluations)) for each in chosen), default=0)):
        for each in chosen:
            for value in _settings(each, evaluations)[place : place + 1]:
                dial = each.bound or "steps"
                fields = {"sampler": {**each.sampler, dial: value}, "temperature": each.temperature}
                found.append(Draw(each.name, each.family, f"{dial} {value:g}", fields))
    return found


def _settings(contender: Contender, evaluations: Sequence[int]) -> Sequence[float]:
    return contender.values if contender.bound else sorted(evaluations)


def _recommended(fields: Mapping[str, Any] | None) -> list[Contender]:
    if not fields:
        return []
    name = "recommended by its author"
    return [Contender(name, "model's own", fields.get("sampler", {}), fields.get("temperature", 1.0))]


def _differs(model: Model, contender: Contender) -> bool:
    """Whether a contender is another sampler than plain groups on this model."""
    by_digits = contender.sampler.get("unit") == "token" or contender.sampler.get("digits") == "last"
    if by_digits and model.sub_tokenizer.sub_tokens_per_token == 1:
        return False
    return "clock" not in contender.sampler or contender.sampler["clock"] != model.clock
