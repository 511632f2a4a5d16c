"""One unit of work for the network: a sample that is drawn, or a pass that is scored.

    states   the canvases to evaluate now, and the positions to read of each
    finish   what the evaluation makes of them
    apply    write that into the state, and say what goes into the log

The network never asks what time it is, nor what a canvas is for: work at different noise levels, of different lengths
and requests shares one evaluation.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, Literal, Protocol, Self, TypeVar

import torch
from torch import Tensor

from unmask_diffusion.high_order import Features
from unmask_diffusion.log import Candidates, LogEntry, Reveal, SampleError
from unmask_diffusion.model import Model


class SamplingError(ValueError):
    """A sample or a pass of a plan that runs alone cannot continue."""


@dataclass(frozen=True, eq=False, slots=True)
class State:
    """A canvas to evaluate."""

    step: int  # the step that is drawn, or read, at this state
    canvas: Tensor  # int64 [L, l], the mask id where a digit is not known
    positions: Sequence[int]  # positions to read, ascending


@dataclass(frozen=True)
class Outcome:
    """What one evaluation made of one unit of work."""

    entries: tuple[LogEntry, ...]  # for the log, in order; an error can only be the last
    states: int  # number of states evaluated
    steps: int  # number of planned evaluations that are done with it
    rows: int = 0  # rows of logits that the first state needed
    all_rows: int = 0  # rows of logits that all states and drafts needed
    drafts: tuple[Reveal, ...] = ()  # what the next steps will probably reveal
    candidates: tuple[tuple[Candidates, ...], ...] = ()  # for each reveal, of the tokens it left intermediate
    other: Features | None = field(default=None, compare=False)  # for a next step that uses two predictions
    bounded: bool = False  # whether the network decided how many sub-tokens it reveals


class Work(Protocol):
    """A sample being drawn, or a pass being scored."""

    @property
    def index(self) -> int:
        """Number of the sample in its request, or of the pass in its plan."""

    @property
    def length(self) -> int:
        """Tokens of each of its canvases."""

    @property
    def evaluations_left(self) -> int:
        """Planned network evaluations that are not done."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to evaluate."""

    @property
    def masked_share(self) -> float:
        """Share of its sub-tokens that are masked at its next state."""

    @property
    def known_states(self) -> int:
        """Number of states that can be evaluated now and are certain to be needed."""

    @property
    def can_draft(self) -> bool:
        """Whether further states can be reached by drafts, which may be wrong."""

    @property
    def step_size(self) -> int:
        """Mean number of rows of logits that a state needs, about; at least 1."""

    def states(self, budget: int) -> Sequence[State]:
        """The states to evaluate now: between 1 and `budget`.

        An outcome has up to budget - 1 drafts for the next evaluation, if the work can draft.
        """

    @classmethod
    def finish(cls, model: Model, features: Tensor, batch: "Sequence[Evaluated[Self]]") -> list[Outcome]:
        """Make outcomes of evaluated states, all work of one kind in a batch.

        A pure function that may be repeated: an outcome depends on its own work alone, bit for bit.
        """

    def apply(self, outcome: Outcome) -> Sequence[LogEntry]:
        """Write an outcome into the state; return what the log is to say."""


AnyWork = TypeVar("AnyWork", bound=Work, covariant=True)


@dataclass(frozen=True, eq=False)
class Evaluated(Generic[AnyWork]):
    """A unit of work whose states have been evaluated."""

    work: AnyWork
    budget: int
    states: Sequence[State]
    first_row: int  # of the features; its rows follow one another, state by state, position by position

    def rows(self) -> list[dict[int, int]]:
        """For each state: position → row of the features."""
        row = count(self.first_row)
        return [dict(zip(state.positions, row, strict=False)) for state in self.states]


Phase = Callable[[Literal["trunk", "draw"]], AbstractContextManager[object]]


@torch.inference_mode()
def evaluate(
    model: Model,
    works: Sequence[Work],
    budgets: Sequence[int] | None = None,
    phase: Phase = lambda _: nullcontext(),
) -> list[Outcome]:
    """Take work of any kind through one network evaluation; nothing is written into it.

    Args:
        model: the model to evaluate.
        works: samples and passes, in any mixture.
        budgets: canvases that each may use; default: its known states, and no drafts.
        phase: a context manager around the trunk, and around what is made of its features, for who has a clock.

    Returns:
        The outcome of each, in their order. It does not depend on the others.
    """
    if not works:
        return []
    batch: list[Evaluated[Work]] = []
    states: list[State] = []
    rows = 0
    for work, budget in zip(works, budgets or [work.known_states for work in works], strict=True):
        batch.append(Evaluated(work, budget, work.states(budget), rows))
        for state in batch[-1].states:
            states.append(state)
            rows += len(state.positions)
    with phase("trunk"):
        positions = [torch.tensor(state.positions, dtype=torch.int64) for state in states]
        features = model.denoiser.trunk([state.canvas for state in states], positions)
    outcomes: dict[int, Outcome] = {}
    with phase("draw"):
        kinds = [type(work) for work in works]
        for kind in dict.fromkeys(kinds):
            own = [i for i, each in enumerate(kinds) if each is kind]
            outcomes |= zip(own, kind.finish(model, features, [batch[i] for i in own]), strict=True)
    return [outcomes[i] for i in range(len(works))]


def advance(model: Model, works: Sequence[Work]) -> None:
    """Take work through one network evaluation and write the outcomes into it.

    Raises:
        SamplingError: one of them cannot continue.
    """
    for work, outcome in zip(works, evaluate(model, works), strict=True):
        for entry in work.apply(outcome):
            if isinstance(entry, SampleError):
                raise SamplingError(entry.message)
