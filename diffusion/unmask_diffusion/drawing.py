"""From features to digits: one class a position, drawn from the consistent ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from unmask_kernels import DrawError, Draws, consistent_log_softmax, draw_from_logits, to_device

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


@dataclass(eq=False, slots=True)
class Place:
    """A position of a step: one class is drawn for it, and its digits j are revealed."""

    lane: Lane
    position: int  # in the canvas
    js: tuple[int, ...]  # digits to reveal, ascending
    weight: float = 0.0  # how far its prediction is extrapolated (`high_order.weights`)
    drawn: list[int] | str = INVALID  # the digits of the class that was drawn, or why there is none


def draw_steps(model: Model, features: Tensor, lanes: Sequence[Lane]) -> list[Drawn]:
    """Draw the step of every lane from features [N, F].

    Digits of different positions are drawn independently, digits of one position jointly: one class is drawn from the
    consistent joint distribution, and the digits that the step names are revealed. That is a draw from the digits'
    marginal, and no digits that name no token can come out.
    """
    steps = [*map(places_of, lanes)]
    draw_places(model, features, [*chain.from_iterable(steps)])
    return [*map(join, steps)]


def places_of(lane: Lane) -> list[Place]:
    """The positions of a lane's step, ascending."""
    step, kind = lane.steps[lane.step], lane.plan.request.sampler.high_order
    far = dict(zip(step.reveal, weights(kind, lane.steps, lane.step), strict=False)) if kind else {}
    digits = lane.canvas.shape[1]
    places = []
    for position, js in step.by_position(digits).items():
        # the digits of a position are drawn together: as far as the one that is hit first
        weight = min(far[position * digits + j] for j in js) if far else 0.0
        places.append(Place(lane, position, js, weight))
    return places


def draw_places(model: Model, features: Tensor, places: Sequence[Place]) -> None:
    """Draw a class at every place: all that use one prediction together, those that use two in parts."""
    plain: list[Place] = []
    others: list[Place] = []
    for place in places:
        (others if place.weight else plain).append(place)
    if plain:
        _draw_together(model, features, plain)
    for start in range(0, len(others), EXTRAPOLATED_AT_ONCE):
        _draw_together(model, features, others[start : start + EXTRAPOLATED_AT_ONCE])


def _draw_together(model: Model, features: Tensor, places: Sequence[Place]) -> None:
    digits = model.sub_tokenizer.sub_tokens_per_token
    rows, revealed, numbers = [], [], []
    for place in places:
        lane, request = place.lane, place.lane.plan.request
        rows.append(lane.rows[place.position])
        revealed.append(lane.canvas[place.position])
        event = event_of(lane.sample, place.position * digits + place.js[0])
        temperature = lane.plan.temperature(lane.sample, lane.step)
        numbers.append((lane.plan.seed, event, temperature, request.top_k, request.top_p))
    seeds, events, temperatures, top_k, top_p = zip(*numbers, strict=True)
    draws = Draws(
        revealed=torch.stack(revealed),
        seeds=torch.tensor(seeds),
        events=torch.tensor(events),
        temperature=torch.tensor(temperatures, dtype=torch.float64),
        top_k=torch.tensor(top_k),
        top_p=torch.tensor(top_p, dtype=torch.float64),
    )
    codes = model.sub_tokenizer.codes_on(features.device)
    own = take_rows(features, rows)
    errors: dict[int, str] = {}
    try:
        if places[0].weight:
            classes = draw_from_logits(_extrapolated(model, own, places, draws.revealed, codes), codes, draws)
        else:
            classes = model.denoiser.draw(own, codes, draws)
    except DrawError as error:
        classes = error.classes
        errors = dict.fromkeys(error.no_candidate, IMPOSSIBLE) | dict.fromkeys(error.invalid, INVALID)
    drawn: list[list[int]] = model.sub_tokenizer.codes[classes].tolist()
    for row, place in enumerate(places):
        place.drawn = errors.get(row, drawn[row])


def take_rows(features: Tensor, rows: Sequence[int]) -> Tensor:
    """Rows of features [N, F], often all of them in their order, which takes no copy."""
    if rows == [*range(len(features))]:
        return features
    (index,) = to_device([torch.tensor(rows, dtype=torch.int64)], features.device)
    return features[index]


def join(places: Sequence[Place]) -> Drawn:
    """Join what was drawn at the places of one step: a reveal, or the gravest of the errors."""
    lane = places[0].lane
    sub_tokens: list[tuple[int, int, int]] = []
    errors: list[str] = []
    for place in places:
        if isinstance(place.drawn, str):
            errors.append(place.drawn)
        else:
            sub_tokens += [(place.position, j, place.drawn[j]) for j in place.js]
    if errors:
        message = INVALID if INVALID in errors else IMPOSSIBLE
        return SampleError(lane.sample, message, impossible=message == IMPOSSIBLE)
    return Reveal(lane.sample, lane.step, tuple(sub_tokens))


def _extrapolated(model: Model, rows: Tensor, places: Sequence[Place], revealed: Tensor, codes: Tensor) -> Tensor:
    """The logits [N, C] of places that use two predictions; rows [N, F] and revealed digits [N, l] are those of now.

    The difference is what other positions have revealed: both predictions know a position's own digits.
    """
    before = torch.stack([place.lane.earlier.at(place.position) for place in places if place.lane.earlier])
    weight = torch.tensor([place.weight for place in places], dtype=torch.float64)
    revealed, weight = to_device([revealed, weight], rows.device)
    now, then = (consistent_log_softmax(model.denoiser.head(each), revealed, codes) for each in (rows, before))
    return extrapolate(now, then, weight)
