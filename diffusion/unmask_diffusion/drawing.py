"""From features to digits: one class a position, drawn from the consistent ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from unmask_kernels import DrawError, Draws, consistent_log_softmax, draw

from unmask_diffusion.high_order import Earlier, extrapolate, weights
from unmask_diffusion.log import Reveal, SampleError
from unmask_diffusion.model import Model
from unmask_diffusion.plan import Plan
from unmask_diffusion.schedule import Steps, event_of

IMPOSSIBLE = "what is given has probability zero under this model: no class is possible"
INVALID = "the model gave NaN or infinite logits"
# extrapolated positions whose logits are in memory together: the head's product fills so many rows in any case
EXTRAPOLATED_AT_ONCE = 64

# what a step of a sample became
Drawn = Reveal | SampleError


@dataclass(frozen=True, eq=False, slots=True)
class Lane:
    """An evaluated state of a sample."""

    plan: Plan
    sample: int  # index of the sample in its request
    step: int  # the step that is drawn at this state
    canvas: Tensor  # int64 [length, l]
    rows: Mapping[int, int]  # position → row of the features
    earlier: Earlier | None = None  # where two predictions are used

    @property
    def steps(self) -> Steps:
        return self.plan.schedules[self.sample].steps

    def after(self, reveal: Reveal) -> "Lane":
        """The next state, seen through this state's features."""
        canvas = self.canvas.clone()
        reveal.write(canvas)
        return Lane(self.plan, self.sample, self.step + 1, canvas, self.rows)


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """A position of a step: one class is drawn for it, and its digits j are revealed."""

    lane: Lane
    position: int  # in the canvas
    js: tuple[int, ...]  # digits to reveal, ascending
    weight: float = 0.0  # how far its prediction is extrapolated (`high_order.weights`)


def draw_steps(model: Model, features: Tensor, lanes: Sequence[Lane]) -> list[Drawn]:
    """Draw the step of every lane from features [N, F].

    Digits of different positions are drawn independently, digits of one position jointly: one class is drawn from the
    consistent joint distribution, and the digits that the step names are revealed. That is a draw from the digits'
    marginal, and no digits that name no token can come out.
    """
    places = [places_of(lane) for lane in lanes]
    drawn = iter(draw_places(model, features, [place for own in places for place in own]))
    return [join(own, [next(drawn) for _ in own]) for own in places]


def places_of(lane: Lane) -> list[Place]:
    """The positions of a lane's step, ascending."""
    step, kind = lane.steps[lane.step], lane.plan.request.sampler.high_order
    far = dict(zip(step.reveal, weights(kind, lane.steps, lane.step), strict=False)) if kind else {}
    digits = lane.canvas.shape[1]
    return [
        # the digits of a position are drawn together: as far as the one that is hit first
        Place(lane, position, js, min((far[position * digits + j] for j in js), default=0.0) if far else 0.0)
        for position, js in step.by_position(digits).items()
    ]


def draw_places(model: Model, features: Tensor, places: Sequence[Place]) -> list[list[int] | str]:
    """Draw a class at every place: its digits, or why there is none."""
    drawn: dict[int, list[int] | str] = {}
    for part in _alike(places):
        draws, codes = _draws(model, part).to(features.device), model.sub_tokenizer.codes_on(features.device)
        rows = features[[place.lane.rows[place.position] for place in part]]
        errors: dict[int, str] = {}
        try:
            if part[0].weight:
                classes = draw(_extrapolated(model, rows, part, draws.revealed, codes), codes=codes, **vars(draws))
            else:
                classes = model.denoiser.draw(rows, codes, draws)
        except DrawError as error:
            classes = error.classes
            errors = dict.fromkeys(error.no_candidate, IMPOSSIBLE) | dict.fromkeys(error.invalid, INVALID)
        digits: list[list[int]] = model.sub_tokenizer.codes[classes.cpu()].tolist()
        drawn |= {id(place): errors.get(row, digits[row]) for row, place in enumerate(part)}
    return [drawn[id(place)] for place in places]


def join(places: Sequence[Place], drawn: Sequence[list[int] | str]) -> Drawn:
    """Join what was drawn at the places of one step: a reveal, or the gravest of the errors."""
    lane = places[0].lane
    errors = {each for each in drawn if isinstance(each, str)}
    if errors:
        message = INVALID if INVALID in errors else IMPOSSIBLE
        return SampleError(lane.sample, message, impossible=message == IMPOSSIBLE)
    sub_tokens = (
        (place.position, j, int(digits[j])) for place, digits in zip(places, drawn, strict=True) for j in place.js
    )
    return Reveal(lane.sample, lane.step, tuple(sub_tokens))


def _alike(places: Sequence[Place]) -> list[list[Place]]:
    """The places that are drawn from one prediction, and parts of those that are drawn from two."""
    plain, others = [each for each in places if not each.weight], [each for each in places if each.weight]
    parts = [others[start : start + EXTRAPOLATED_AT_ONCE] for start in range(0, len(others), EXTRAPOLATED_AT_ONCE)]
    return [part for part in (plain, *parts) if part]


def _draws(model: Model, places: Sequence[Place]) -> Draws:
    digits = model.sub_tokenizer.sub_tokens_per_token
    requests = [place.lane.plan.request for place in places]
    events = [event_of(place.lane.sample, place.position * digits + place.js[0]) for place in places]
    return Draws(
        revealed=torch.stack([place.lane.canvas[place.position] for place in places]),
        seeds=torch.tensor([place.lane.plan.seed for place in places]),
        events=torch.tensor(events),
        temperature=torch.tensor([request.temperature for request in requests], dtype=torch.float64),
        top_k=torch.tensor([request.top_k for request in requests]),
        top_p=torch.tensor([request.top_p for request in requests], dtype=torch.float64),
    )


def _extrapolated(model: Model, rows: Tensor, places: Sequence[Place], revealed: Tensor, codes: Tensor) -> Tensor:
    """The logits [N, C] of places that use two predictions; rows [N, F] and revealed digits [N, l] are those of now.

    The difference is what other positions have revealed: both predictions know a position's own digits.
    """
    before = torch.stack([place.lane.earlier.at(place.position) for place in places if place.lane.earlier])
    now, then = (consistent_log_softmax(model.denoiser.head(each), revealed, codes) for each in (rows, before))
    weight = torch.tensor([place.weight for place in places], dtype=torch.float64, device=rows.device)
    return extrapolate(now, then, weight)
