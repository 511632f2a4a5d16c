"""From features to digits: one class a position, drawn from the consistent ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress

import torch
from torch import Tensor
from unmask_kernels import (
    DrawError,
    Draws,
    Measure,
    confidence,
    consistent_log_softmax,
    draw_from_logits,
    restricted,
    to_device,
    with_offsets,
)

from unmask_diffusion.confidence import within_bound
from unmask_diffusion.high_order import Features, extrapolate, guided, weights
from unmask_diffusion.log import Reveal, SampleError
from unmask_diffusion.model import Model
from unmask_diffusion.plan import Plan
from unmask_diffusion.request import Sampler
from unmask_diffusion.schedule import Steps, by_position, event_of

IMPOSSIBLE = "what is given has probability zero under this model: no class is possible"
INVALID = "the model gave NaN or infinite logits"
# positions whose logits are in memory together: the head's product fills so many rows in any case
ROWS_AT_ONCE = 64

# what makes a sampler sure
MEASURES: dict[str, Measure] = {
    "confidence": "confidence",
    "margin": "margin",
    "entropy": "entropy",
    "entropy_bounded": "entropy",
    "threshold": "top",
}

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
    other: Features | None = None  # a second prediction, where two are used

    @property
    def steps(self) -> Steps:
        return self.plan.schedules[self.sample].steps

    @property
    def sampler(self) -> Sampler:
        return self.plan.request.sampler

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
    js: tuple[int, ...]  # digits to reveal, ascending; in confidence order the masked ones, which compete
    turn: int = 0  # of its draw, which tells several of one sub-token apart
    weight: float = 0.0  # how far its prediction is extrapolated (`high_order.weights`)
    drawn: list[int] | str = INVALID  # the digits of the class that was drawn, or why there is none
    confidence: list[float] | None = None  # of each digit, in confidence order


def draw_steps(model: Model, features: Tensor, lanes: Sequence[Lane]) -> list[Drawn]:
    """Draw the step of every lane from features [N, F].

    Digits of different positions are drawn independently, digits of one position jointly: one class is drawn from the
    consistent joint distribution, and the digits that the step names are revealed. That is a draw from the digits'
    marginal, and no digits that name no token can come out.
    """
    steps = [places_of(lane, model.sub_tokenizer.mask_id) for lane in lanes]
    draw_places(model, features, [*chain.from_iterable(steps)])
    return [*map(join, steps)]


def places_of(lane: Lane, mask_id: int) -> list[Place]:
    """The positions of a lane's step, ascending; in confidence order, all masked ones of its block."""
    step = lane.steps[lane.step]
    if lane.steps.by_confidence:
        turn = 0 if lane.sampler.noise == "position" else 1 + lane.step
        return [Place(lane, position, js, turn) for position, js in masked(lane.canvas, step.reveal, mask_id).items()]
    high = weights(lane.steps, lane.step) if lane.sampler.high_order else ()
    far = dict(zip(step.reveal, high, strict=False))
    turns = dict(zip(step.reveal, step.turns, strict=False))
    digits = lane.canvas.shape[1]
    places = []
    for position, js in step.by_position(digits).items():
        # the digits of a position are drawn together: as far as the one that is hit first
        weight = min(far[position * digits + j] for j in js) if far else 0.0
        places.append(Place(lane, position, js, turns.get(position * digits + js[0], 0), weight))
    return places


def masked(canvas: Tensor, sub_tokens: Sequence[int], mask_id: int) -> dict[int, tuple[int, ...]]:
    """Those of some sub-tokens that are masked on a canvas [L, l]: position → digits j, both ascending."""
    hidden = (canvas.view(-1)[list(sub_tokens)] == mask_id).tolist()
    return by_position(compress(sub_tokens, hidden), canvas.shape[1])


def draw_places(model: Model, features: Tensor, places: Sequence[Place]) -> None:
    """Draw a class at every place: all that need nothing but the draw together, the others in parts."""
    plain: list[Place] = []
    extrapolated: list[Place] = []
    others: list[Place] = []
    for place in places:
        sampler = place.lane.sampler
        by_logits = sampler.by_confidence or sampler.guidance or sampler.logits_eos_inf
        (extrapolated if place.weight else others if by_logits else plain).append(place)
    if plain:
        _draw_together(model, features, plain, None)
    for some, logits_of in ((extrapolated, _extrapolated), (others, _adjusted)):
        for start in range(0, len(some), ROWS_AT_ONCE):
            _draw_together(model, features, some[start : start + ROWS_AT_ONCE], logits_of)


LogitsOf = Callable[[Model, Tensor, Sequence[Place], Draws, Tensor], Tensor]


def _draw_together(model: Model, features: Tensor, places: Sequence[Place], logits_of: LogitsOf | None) -> None:
    digits = model.sub_tokenizer.sub_tokens_per_token
    rows, revealed, numbers = [], [], []
    for place in places:
        lane, request = place.lane, place.lane.plan.request
        rows.append(lane.rows[place.position])
        revealed.append(lane.canvas[place.position])
        event = event_of(lane.sample, place.position * digits + place.js[0], place.turn)
        temperature = lane.plan.temperature(lane.sample, lane.step)
        numbers.append((lane.plan.seed, event, temperature, request.top_k, request.top_p, request.min_p))
    seeds, events, temperatures, top_k, top_p, min_p = zip(*numbers, strict=True)
    offsets = tuple(place.lane.plan.offsets_at(place.position) for place in places)
    draws = Draws(
        revealed=torch.stack(revealed),
        seeds=torch.tensor(seeds),
        events=torch.tensor(events),
        temperature=torch.tensor(temperatures, dtype=torch.float64),
        top_k=torch.tensor(top_k),
        top_p=torch.tensor(top_p, dtype=torch.float64),
        offsets=offsets if any(offsets) else (),
        min_p=torch.tensor(min_p, dtype=torch.float64) if any(min_p) else None,
    )
    codes = model.sub_tokenizer.codes_on(features.device)
    own = take_rows(features, rows)
    errors: dict[int, str] = {}
    logits = logits_of and logits_of(model, own, places, draws, codes)
    try:
        classes = (
            draw_from_logits(logits, codes, draws) if logits is not None else model.denoiser.draw(own, codes, draws)
        )
    except DrawError as error:
        classes = error.classes
        errors = dict.fromkeys(error.no_candidate, IMPOSSIBLE) | dict.fromkeys(error.invalid, INVALID)
    drawn: list[list[int]] = model.sub_tokenizer.codes[classes].tolist()
    for row, place in enumerate(places):
        place.drawn = errors.get(row, drawn[row])
    if logits is not None and logits_of is _adjusted:
        _weigh(model, logits, places, draws, classes)


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
    if lane.steps.by_confidence:
        sure = [place.confidence[j] for place in places if place.confidence for j in place.js]
        # of equals the first
        order = sorted(range(len(sure)), key=lambda each: (-sure[each], each))
        if lane.sampler.by_bound:
            count = within_bound(lane.sampler, [sure[each] for each in order])
        else:
            count = lane.steps.size(lane.step)
        sub_tokens = [sub_tokens[each] for each in sorted(order[:count])]
    again = tuple(divmod(each, lane.canvas.shape[1]) for each in lane.steps[lane.step].mask)
    return Reveal(lane.sample, lane.step, tuple(sub_tokens), again)


def _extrapolated(model: Model, rows: Tensor, places: Sequence[Place], draws: Draws, codes: Tensor) -> Tensor:
    """The logits [N, C] of places that use two predictions; rows [N, F] and draws are those of now.

    The difference is what other positions have revealed: both predictions know a position's own digits.
    """
    before = torch.stack([place.lane.other.at(place.position) for place in places if place.lane.other])
    weight = torch.tensor([place.weight for place in places], dtype=torch.float64)
    revealed, weight = to_device([draws.revealed, weight], rows.device)
    logits = (restricted(model.denoiser.head(each), draws.offsets) for each in (rows, before))
    now, then = (consistent_log_softmax(each, revealed, codes) for each in logits)
    return extrapolate(now, then, weight)


def _adjusted(model: Model, rows: Tensor, places: Sequence[Place], draws: Draws, _codes: Tensor) -> Tensor:
    """The head's logits [N, C], with guidance, in sets, and without the end token where the requests want that."""
    logits = model.denoiser.head(rows).clone()  # the head may be the identity
    twice = [row for row, place in enumerate(places) if place.lane.sampler.guidance]
    if twice:
        others = [places[row].lane.other for row in twice]
        free = torch.stack([each.at(places[row].position) for row, each in zip(twice, others, strict=True) if each])
        weights = [places[row].lane.sampler.guidance for row in twice]
        (weight,) = to_device([torch.tensor(weights, dtype=logits.dtype)], rows.device)
        logits[twice] = guided(logits[twice], model.denoiser.head(free), weight)
    endless = [row for row, place in enumerate(places) if place.lane.sampler.logits_eos_inf]
    if endless:
        logits[endless, model.end_token_ids[0]] = -torch.inf
    return restricted(logits, draws.offsets)


def _weigh(model: Model, logits: Tensor, places: Sequence[Place], draws: Draws, classes: Tensor) -> None:
    """Find the confidence of what was drawn at places in confidence order, from their logits [N, C]."""
    kinds: dict[tuple[Measure, bool, bool], list[int]] = {}
    for row, place in enumerate(places):
        sampler = place.lane.sampler
        if (measure := MEASURES.get(sampler.name)) and isinstance(place.drawn, list):
            # Dream's sampler looks at what it draws from, the others at the model's own distribution
            tempered = sampler.cut == "dream" or measure in ("margin", "entropy")
            kinds.setdefault((measure, tempered, bool(sampler.confidence_eos_eot_inf)), []).append(row)
    for (measure, tempered, end_last), rows in kinds.items():
        index = torch.tensor(rows)
        index, chosen, ends = to_device([index, classes[index], torch.tensor(model.end_token_ids)], logits.device)
        own, drawn = logits[index], draws.take(torch.tensor(rows)).to(logits.device)
        own = with_offsets(own, drawn.offsets) if tempered else own
        ended = torch.isin(chosen, ends) if end_last else torch.zeros_like(chosen, dtype=torch.bool)
        if end_last:
            own[(~ended).nonzero(), ends] = -torch.inf
        found = confidence(
            own,
            drawn.revealed,
            model.sub_tokenizer.codes_on(logits.device),
            chosen,
            measure,
            **({"temperature": drawn.temperature, "top_k": drawn.top_k, "top_p": drawn.top_p} if tempered else {}),
            min_p=drawn.min_p if tempered and drawn.min_p is not None else 0.0,
        )
        for row, sure, last in zip(rows, found.tolist(), ended.tolist(), strict=True):
            places[row].confidence = [min(each, 0.0) for each in sure] if last else sure
