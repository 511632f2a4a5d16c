"""Passes being scored, and what one network evaluation reads of them.

The digits are known, so the states of a pass are too: any number of them can be evaluated together with any other work.
A state gives marginals of sub-tokens and joints of tokens. Let Z(y) be the sum of exp(logit) over the classes that are
consistent with y: p(digit | y) = Z(y, digit) / Z(y).
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor
from unmask_kernels import agrees, consistent_log_normaliser

from unmask_diffusion.drawing import INVALID
from unmask_diffusion.log import UNITS_A_NAT, LogEntry, Readout, SampleError
from unmask_diffusion.model import Model
from unmask_diffusion.scoring.plan import Pass, ScorePlan
from unmask_diffusion.work import Evaluated, Outcome, State

IMPOSSIBLE = "the input, with what is given, has probability zero under this model: no bound is finite"
# rows whose logits are in memory together: the head's product fills so many in any case
ROWS_AT_ONCE = 64


@dataclass(frozen=True, eq=False, slots=True)
class Probe:
    """A token of a state whose masked digits are known, and are to be read."""

    row: int  # of the features
    digits: list[int]  # of the state, [l], the mask id where a digit is masked
    token: int  # the true token
    js: tuple[int, ...]  # masked digits whose marginals are wanted, ascending
    most: int = 0  # number of likeliest classes wanted
    # whether the joint is that of all classes, whatever digits are revealed: as models without carry-over are trained
    unfiltered: bool = False


@dataclass(frozen=True, slots=True)
class Surprise:
    """What a probe reads, in nats. inf: the model gives it probability zero; NaN: the logits are invalid."""

    marginals: tuple[float, ...]  # -log p(digit j | state) of every j that is wanted
    joint: float  # -log p(token | state), of the consistent classes or of all
    likeliest: tuple[tuple[int, float], ...] = ()  # classes with their -log p(class | state), the likeliest first


class ActivePass:
    """A pass being scored. Satisfies `Work`."""

    def __init__(self, model: Model, plan: ScorePlan, index: int, step: int = 0) -> None:
        self.plan = plan
        self.index = index
        self.step = step  # number of evaluations that have been read
        self._sub_tokenizer = model.sub_tokenizer
        # the published integrand of a model without carry-over: every position, revealed ones included
        self._unfiltered = plan.request.published_integrand and not model.carry_over
        self._first = plan.windows[plan.window_of(index)].start
        self._tokens = plan.tokens[self._first : self._first + plan.length]

    @cached_property
    def _pass(self) -> Pass:
        """The pass, drawn when it is first evaluated: counting evaluations does not need it."""
        return self.plan.pass_of(self.index)

    @cached_property
    def _truth(self) -> Tensor:
        """The window's digits, int64 [length, l]; masked behind the text."""
        digits = self._sub_tokenizer.masked(self.plan.length)
        digits[: len(self._tokens)] = self._sub_tokenizer.codes[list(self._tokens)]
        return digits

    @property
    def length(self) -> int:
        return self.plan.length

    @property
    def evaluations_left(self) -> int:
        return self.plan.evaluations_of(self.index) - self.step

    @property
    def finished(self) -> bool:
        return not self.evaluations_left

    @property
    def masked_share(self) -> float:
        return 0.0 if self.finished else len(self._pass.masked(self.step)) / len(self._pass.order)

    @property
    def known_states(self) -> int:
        return self.evaluations_left

    @property
    def can_draft(self) -> bool:
        return False

    @property
    def step_size(self) -> int:
        return max(1, int(self.plan.rows / self.plan.network_evaluations))

    def states(self, budget: int) -> list[State]:
        """Its next states, as many as there are and the budget allows."""
        return [self._state(step) for step in range(self.step, self.step + min(budget, self.evaluations_left))]

    @classmethod
    def finish(cls, model: Model, features: Tensor, batch: "Sequence[Evaluated[ActivePass]]") -> list[Outcome]:
        probes = [
            [each.work._probes(state, rows) for state, rows in zip(each.states, each.rows(), strict=True)]
            for each in batch
        ]
        read = iter(surprises(model, features, [probe for own in probes for state in own for probe in state.values()]))
        return [
            each.work._outcome([
                (state.step, {position: next(read) for position in of_state})
                for state, of_state in zip(each.states, own, strict=True)
            ])
            for each, own in zip(batch, probes, strict=True)
        ]  # fmt: skip

    def apply(self, outcome: Outcome) -> tuple[LogEntry, ...]:
        self.step += outcome.steps
        return outcome.entries

    def _state(self, step: int) -> State:
        canvas = self._truth.clone()
        canvas.view(-1)[list(self._pass.masked(step))] = self._sub_tokenizer.mask_id
        if self._unfiltered:
            return State(step, canvas, sorted(self._pass.window.scored))
        # with the published integrand, all positions that are not fully revealed
        shown = self._pass.masked if self.plan.request.published_integrand else self._pass.read
        positions = sorted({sub_token // self.plan.sub_tokens_per_token for sub_token in shown(step)})
        return State(step, canvas, positions)

    def _probes(self, state: State, rows: Mapping[int, int]) -> dict[int, Probe]:
        """What is read at a state: position → probe."""
        digits_a_token = self.plan.sub_tokens_per_token
        read: defaultdict[int, list[int]] = defaultdict(list)
        for sub_token in self._pass.read(state.step):
            read[sub_token // digits_a_token].append(sub_token % digits_a_token)
        digits = state.canvas[list(state.positions)].tolist()
        if self.plan.whole_tokens:
            read.clear()  # the joint of its digits is wanted, no marginals
        most, found = self.plan.request.logprobs or 0, {}
        for position, known in zip(state.positions, digits, strict=True):
            js = tuple(sorted(read[position]))
            found[position] = Probe(rows[position], known, self._tokens[position], js, most, self._unfiltered)
        return found

    def _outcome(self, read: Sequence[tuple[int, dict[int, Surprise]]]) -> Outcome:
        found = [self._readout(step, of_state) for step, of_state in read]
        errors = [each for each in found if isinstance(each, SampleError)]
        if errors:
            entry: LogEntry = min(errors, key=lambda error: error.impossible)  # the gravest
        else:
            *_, entry = accumulate(each for each in found if isinstance(each, Readout))
        rows = sum(len(of_state) for _, of_state in read)
        return Outcome((entry,), len(read), 0 if errors else len(read), rows // len(read), rows)

    def _readout(self, step: int, read: dict[int, Surprise]) -> Readout | SampleError:
        """The weighted sums of one state, or that they are not finite."""
        terms = {p: (each.joint,) if self.plan.whole_tokens else each.marginals for p, each in read.items()}
        nats = [nat for each in terms.values() for nat in each]
        joint = math.fsum(each.joint for each in read.values()) if self.plan.request.published_integrand else 0.0
        if not math.isfinite(total := math.fsum(nats) + joint):
            impossible = not math.isnan(total)
            return SampleError(self.index, IMPOSSIBLE if impossible else INVALID, impossible)
        weight = self._pass.weight(step)
        units = {
            position + self._first: round(weight * math.fsum(each) * UNITS_A_NAT)
            for position, each in terms.items()
            if each
        }
        likeliest = tuple(
            (position + self._first, tuple((token, round(nats * UNITS_A_NAT)) for token, nats in each.likeliest))
            for position, each in read.items()
            if each.likeliest
        )
        numbered = self.plan.request.per_token or self.plan.request.logprobs is not None
        by_token = tuple(units.items()) if numbered else ()
        joint_units = round(self._pass.joint_weight(step) * joint * UNITS_A_NAT)
        return Readout(self.index, 1, sum(units.values()), by_token, joint_units, likeliest)


def surprises(model: Model, features: Tensor, probes: Sequence[Probe]) -> list[Surprise]:
    """Read probes from the rows of features [N, F] that they name."""
    parts = (probes[start : start + ROWS_AT_ONCE] for start in range(0, len(probes), ROWS_AT_ONCE))
    return [each for part in parts for each in _read_part(model, features[[probe.row for probe in part]], part)]


def _read_part(model: Model, features: Tensor, probes: Sequence[Probe]) -> list[Surprise]:
    codes, base = model.sub_tokenizer.codes_on(features.device), model.sub_tokenizer.base
    logits = model.denoiser.head(features).double()
    states = torch.tensor([probe.digits for probe in probes], device=codes.device)
    tokens = torch.tensor([probe.token for probe in probes], device=codes.device)
    before = consistent_log_normaliser(logits, states, codes)
    marginals = torch.zeros(len(probes), model.sub_tokenizer.sub_tokens_per_token, dtype=torch.float64)
    for j in range(marginals.shape[1]):
        rows = [row for row, probe in enumerate(probes) if j in probe.js]
        if rows:
            after = states[rows].clone()
            after[:, j] = codes[tokens[rows], j]
            marginals[rows, j] = _surprise(before[rows], consistent_log_normaliser(logits[rows], after, codes)).cpu()
    whole = before
    if rows := [row for row, probe in enumerate(probes) if probe.unfiltered]:
        whole = before.clone()
        whole[rows] = consistent_log_normaliser(logits[rows], torch.full_like(states[rows], base), codes)
    joints: list[float] = _surprise(whole, logits.gather(1, tokens[:, None])[:, 0]).tolist()
    likeliest = _likeliest(before, logits, states, codes, probes)
    return [
        Surprise(tuple(row[j] for j in probe.js), joint, classes)
        for probe, row, joint, classes in zip(probes, marginals.tolist(), joints, likeliest, strict=True)
    ]


def _likeliest(
    before: Tensor, logits: Tensor, states: Tensor, codes: Tensor, probes: Sequence[Probe]
) -> list[tuple[tuple[int, float], ...]]:
    """The classes that each probe asks for; those of probability zero are left out."""
    most = min(max(probe.most for probe in probes), logits.shape[1])
    if not most:
        return [()] * len(probes)
    top = logits.masked_fill(~agrees(states, codes), -torch.inf).topk(most, dim=1)
    classes, nats = top.indices.tolist(), _surprise(before[:, None], top.values).tolist()
    return [
        tuple((token, value) for token, value in zip(*each, strict=True) if math.isfinite(value))[: probe.most]
        for probe, *each in zip(probes, classes, nats, strict=True)
    ]


def _surprise(whole: Tensor, part: Tensor) -> Tensor:
    """-log(part / whole), from logarithms: inf where nothing is left, also where there was nothing."""
    return (whole - part).masked_fill(part == -torch.inf, torch.inf)
