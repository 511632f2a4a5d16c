"""Scores read pass by pass, and what they should be, by enumeration."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from unmask_diffusion import (
    ActivePass,
    MarkovDenoiser,
    Readout,
    ScorePlan,
    ScoreRequest,
    TableDenoiser,
    evaluate,
    make_score_plan,
)
from unmask_diffusion.log import UNITS_A_NAT
from unmask_diffusion.scoring.plan import Pass

from tests.helpers import ToyModel, agrees_with


def score_plan(model: ToyModel, **request: object) -> ScorePlan:
    return make_score_plan(model, ScoreRequest.model_validate(request))


def readouts(model: ToyModel, active: Sequence[ActivePass], lanes: int) -> list[Readout]:
    """Take passes one evaluation further together, by so many states each."""
    found: list[Readout] = []
    for each, outcome in zip(active, evaluate(model, active, [lanes for _ in active]), strict=True):
        (entry,) = each.apply(outcome)
        assert isinstance(entry, Readout), entry
        found.append(entry)
    return found


def whole_passes(model: ToyModel, plan: ScorePlan) -> list[Readout]:
    """Every pass of a plan, read to its end."""
    return readouts(model, [ActivePass(model, plan, index) for index in range(plan.passes)], plan.network_evaluations)


def single_states(model: ToyModel, plan: ScorePlan) -> list[Readout]:
    """Every state of every pass, each a readout of its own."""
    logs = []
    for index in range(plan.passes):
        active = ActivePass(model, plan, index)
        logs += [readouts(model, [active], 1)[0] for _ in range(active.evaluations_left)]
    return logs


def nats_of(readout: Readout) -> float:
    return readout.units / UNITS_A_NAT


class OrderedPlan(ScorePlan):
    """A plan whose one pass goes along an order of the test's choice."""

    order: tuple[int, ...]

    def pass_of(self, index: int) -> Pass:
        return Pass(index, self.windows[0], self.order, tuple(range(len(self.order))), reads=1)


def along(plan: ScorePlan, order: Sequence[int]) -> ScorePlan:
    """A plan of one window, all of whose passes go along one order."""
    ordered = OrderedPlan(**{field.name: getattr(plan, field.name) for field in fields(ScorePlan)})
    object.__setattr__(ordered, "order", tuple(order))
    return ordered


# --- the truth on exact models ---------------------------------------------------------------------------------------


def joint_table(model: ToyModel) -> Tensor:
    """Log-probabilities [C] · length of an exact model's sequences, normalised."""
    denoiser = model.denoiser
    if isinstance(denoiser, TableDenoiser):
        table = denoiser.probabilities.log()
    else:
        assert isinstance(denoiser, MarkovDenoiser)
        table = denoiser.initial.log()
        for _ in range(denoiser.length - 1):
            table = table[..., None] + denoiser.transition.log()
    return table - table.flatten().logsumexp(0)


def log_probability(table: Tensor, tokens: Sequence[int], known: Sequence[int], scored: Sequence[int]) -> float:
    """Log p(tokens at `scored` | tokens at `known`), all other positions summed over."""

    def mass(positions: Sequence[int]) -> Tensor:
        index = tuple(tokens[p] if p in positions else slice(None) for p in range(table.ndim))
        return table[index].flatten().logsumexp(0)

    return float(mass([*known, *scored]) - mass(known))


# --- the truth on networks, whose conditionals need not agree -------------------------------------------------------


@dataclass(frozen=True)
class Enumerated:
    """-log p of every sub-token and token of a text in every state of it, straight from the model's logits.

    Attributes:
        marginals: of a masked sub-token: (masked sub-tokens, sub-token) → nats.
        joints: of a position that is not fully revealed: (masked sub-tokens, position) → nats.
    """

    sub_tokens: int
    marginals: dict[tuple[frozenset[int], int], float]
    joints: dict[tuple[frozenset[int], int], float]

    def chain(self, order: Sequence[int]) -> float:
        """-log p along an order."""
        return sum(self.marginals[frozenset(order[i:]), sub_token] for i, sub_token in enumerate(order))

    def masked_sum(self, masked: Sequence[int]) -> float:
        """The marginals of all that is masked."""
        return sum(self.marginals[frozenset(masked), sub_token] for sub_token in masked)

    def joint_sum(self, masked: Sequence[int], digits: int) -> float:
        """The joints of all positions that are not fully revealed."""
        return sum(self.joints[frozenset(masked), position] for position in {each // digits for each in masked})

    def chains(self) -> dict[tuple[int, ...], float]:
        """Of every order."""
        return {order: self.chain(order) for order in itertools.permutations(range(self.sub_tokens))}


@torch.inference_mode()
def enumerated(model: ToyModel, tokens: Sequence[int]) -> Enumerated:
    """Every state of a text that fills its canvas; 2 ** (length · l) of them."""
    digits, mask = model.sub_tokenizer.sub_tokens_per_token, model.sub_tokenizer.mask_id
    codes = model.sub_tokenizer.codes.tolist()
    count = len(tokens) * digits
    states = [frozenset(s for s in range(count) if hidden >> s & 1) for hidden in range(1, 2**count)]
    canvases = model.sub_tokenizer.codes[list(tokens)].repeat(len(states), 1, 1)
    for canvas, masked in zip(canvases, states, strict=True):
        canvas.view(-1)[list(masked)] = mask
    logits = model.denoiser.joint_logits(canvases).double()
    marginals, joints = {}, {}
    for masked, canvas, of_canvas in zip(states, canvases.tolist(), logits, strict=True):
        for position, token in enumerate(tokens):
            here = [j for j in range(digits) if position * digits + j in masked]
            consistent = [c for c, code in enumerate(codes) if agrees_with(canvas[position], code, mask)]
            p = dict(zip(consistent, of_canvas[position, consistent].softmax(0).tolist(), strict=True))
            if here:
                joints[masked, position] = -_log(p[token])
            for j in here:
                shared = sum(p[c] for c in consistent if codes[c][j] == codes[token][j])
                marginals[masked, position * digits + j] = -_log(shared)
    return Enumerated(count, marginals, joints)


def _log(probability: float) -> float:
    return float(torch.tensor(probability, dtype=torch.float64).log())
