"""The one sampler loop: evaluate the network, draw the step's sub-tokens, reveal them.

All samplers of both papers are this loop over different schedules.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unmask_diffusion.candidates import candidates_of_reveals
from unmask_diffusion.drawing import Drawn, Lane, draw_steps, masked, take_rows
from unmask_diffusion.high_order import Features, weights
from unmask_diffusion.log import Candidates, LogEntry, Reveal
from unmask_diffusion.log_probabilities import with_log_probabilities
from unmask_diffusion.model import Model, Outline
from unmask_diffusion.plan import (
    Plan,
    Sample,
    answer_of,
    initial_state,
    make_plan,
    read_sample,
)
from unmask_diffusion.request import GenerationRequest, Sampler
from unmask_diffusion.schedule import Steps
from unmask_diffusion.speculation import accept, draft
from unmask_diffusion.text import find_stop, text_of
from unmask_diffusion.work import Evaluated, Outcome, State, advance


@dataclass(eq=False)
class ActiveSample:
    """A sample being drawn: its plan and the state that its log has led to. Satisfies `Work`."""

    plan: Plan  # of its request
    index: int  # of the sample in its request
    digits: Tensor  # its canvas, int64 [plan.length, l]
    step: int = 0  # number of steps done, with a bound one a sub-token
    evaluations: int = 0  # number of evaluations that did them
    candidates: int = 0  # number of candidates to find of each token that a reveal leaves intermediate
    drafts: tuple[Reveal, ...] = ()  # what the next steps will probably reveal; no part of the state
    # A second prediction of the next step's positions: one evaluation before, or without what was given. No part of the
    # state: where it is missing, its canvas is evaluated.
    other: Features | None = None
    # For a plan with several blocks: digits of the end tokens, int64 [E, l], that stop the sample after its block, and
    # the model if stop strings do so too. Nothing behind can change what stands before them: the answer is cut there.
    end: Tensor | None = None
    reader: Outline | None = None
    needless: int = 0  # number of steps that an end token or a stop string has made needless
    log: list[Reveal] = field(default_factory=list)  # kept where the request asks for log-probabilities

    @classmethod
    def start(cls, model: Model, plan: Plan, index: int) -> "ActiveSample":
        end, reader = None, None
        if plan.schedules[index].steps.borders:
            if model.end_token_ids and not plan.request.ignore_eos:
                end = model.sub_tokenizer.codes[list(model.end_token_ids)]
            reader = model if plan.request.stop else None
        return cls(plan, index, initial_state(model, plan), end=end, reader=reader)

    @property
    def length(self) -> int:
        return self.plan.length

    @property
    def steps(self) -> Steps:
        return self.plan.schedules[self.index].steps

    @property
    def sampler(self) -> Sampler:
        return self.plan.request.sampler

    @property
    def evaluations_left(self) -> int:
        return len(self.steps) - self.step - self.needless

    @property
    def finished(self) -> bool:
        return self.evaluations_left == 0

    @property
    def masked_share(self) -> float:
        return self.evaluations_left / len(self.steps)

    @property
    def known_states(self) -> int:
        return 2 if self._lacks_other else 1

    @property
    def can_draft(self) -> bool:
        # drafts need the order beforehand, one prediction, and that what is revealed stays so
        return not (self.sampler.high_order or self.sampler.guidance or self.sampler.by_confidence or self.steps.again)

    @property
    def step_size(self) -> int:
        step = len(self.steps.order) // len(self.steps)
        if not self.sampler.by_confidence:
            return step
        return max(step, self.evaluations_left * step // (2 * self.plan.blocks))  # half of a block, on average

    def states(self, budget: int) -> list[State]:
        """The state of the log and those that drafts lead to; first the canvas of the second prediction, if missing.

        A step of high order uses the state before, which is this one with the last step masked again; it is missing
        after a takeover. Guidance uses this one without what was given. With a budget of one canvas that is evaluated
        alone, and the step waits for the next evaluation.
        """
        found: list[State] = []
        if self._lacks_other:
            step = self.step if self.sampler.guidance else self.step - 1
            found.append(State(step, self._other_canvas(), self._to_read(self.step, self.step + 1)))
        if len(found) == budget:
            return found
        ahead = budget if self.can_draft else 2 if self._weights(self.step + 1) else 1
        lanes = min(budget, 1 + len(self.drafts), self.evaluations_left) if self.can_draft else 1
        canvas = self.digits
        for lane in range(lanes):
            if lane:
                canvas = canvas.clone()
                self.drafts[lane - 1].write(canvas)
            step = self.step + lane
            found.append(State(step, canvas, self._to_read(step, step + ahead)))
        return found

    @classmethod
    def finish(cls, model: Model, features: Tensor, batch: "Sequence[Evaluated[ActiveSample]]") -> list[Outcome]:
        """Draw the steps of all lanes, keep what is certain, and draft what comes next."""
        lanes = [each.work._lanes(each, features) for each in batch]
        drawn = iter(draw_steps(model, features, [lane for own in lanes for lane in own]))
        kept = [accept(each.work.drafts, [next(drawn) for _ in own]) for each, own in zip(batch, lanes, strict=True)]
        kept = [own[: each.work._before_stop(own) + 1] for each, own in zip(batch, kept, strict=True)]
        kept = with_log_probabilities(model, features, [*zip(lanes, kept, strict=True)])
        wanted = [each.work.candidates for each in batch]
        candidates = candidates_of_reveals(model, features, [*zip(lanes, kept, wanted, strict=True)])
        ahead = [each.budget - 1 if each.work.can_draft else 0 for each in batch]
        drafts = [
            own[: max(0, each.work._before_stop([*certain, *own]) - len(certain))]
            for each, certain, own in zip(
                batch, kept, draft(model, features, [*zip(lanes, kept, ahead, strict=True)]), strict=True
            )
        ]
        return [
            each.work._outcome(each, features, *of_sample)
            for each, of_sample in zip(batch, zip(lanes, kept, drafts, candidates, strict=True), strict=True)
        ]

    def apply(self, outcome: Outcome) -> tuple[LogEntry, ...]:
        self.other = outcome.other
        for entry in outcome.entries:
            if isinstance(entry, Reveal):
                self.reveal(entry)
        self.drafts = outcome.drafts
        return outcome.entries

    def reveal(self, entry: Reveal) -> None:
        """Move on by one entry of the log."""
        entry.write(self.digits)
        self.step = self.plan.step_after(entry)
        self.evaluations += 1
        if self.plan.request.logprobs is not None:
            self.log.append(entry)
        if self._stops(self.digits, self.step):
            self.needless = len(self.steps) - self.step
        self.drafts = self.drafts[1:] if self.drafts[:1] == (entry,) else ()

    def _stops(self, canvas: Tensor, step: int) -> bool:
        """Whether the last block that is complete before a step ends the answer: what follows is needless."""
        if (self.end is None and self.reader is None) or not step or self.steps.block_start(step) != step:
            return False
        positions = self._positions(self.steps.block_start(step - 1), step)
        if self.end is not None and bool((canvas[positions][:, None] == self.end).all(-1).any()):
            return True
        return self.reader is not None and self._holds_stop(self.reader, canvas, positions[0])

    def _holds_stop(self, model: Outline, canvas: Tensor, first: int) -> bool:
        """Whether the text has a stop string that ends at or behind a position.

        Few tokens are decoded again and again; the answer itself is looked at where these hold a stop string. They are
        enough if each has a byte; if not, the sample may go on where it could have stopped.
        """
        stop, generated = self.plan.request.stop, self.plan.generated
        span = canvas[generated.start : generated.stop]
        masked = (span == model.sub_tokenizer.mask_id).any(-1)
        known = int(masked.int().argmax()) if bool(masked.any()) else len(span)
        token_ids: list[int] = model.sub_tokenizer.decode(span[:known]).tolist()
        start = max(0, first - generated.start - max(len(each.encode()) for each in stop) - 1)
        continues = start > 0 or self.plan.continues_text(model)
        if find_stop(text_of(model, token_ids[start:], continues) or "", stop) is None:
            return False
        return answer_of(model, self.plan, self.index, token_ids) is not None

    def _before_stop(self, drawn: Sequence[Drawn]) -> int:
        """How many of the next steps come before the one that the sampler stops after; all if it does not stop."""
        if self.end is not None or self.reader is not None:
            canvas = self.digits.clone()
            for count, entry in enumerate(drawn):
                if isinstance(entry, Reveal):
                    entry.write(canvas)
                    if self._stops(canvas, self.plan.step_after(entry)):
                        return count
        return len(drawn)

    @property
    def _lacks_other(self) -> bool:
        known = self.other is not None and self.other.step == self.step
        return not known and bool(self.sampler.guidance or self._weights(self.step))

    @property
    def _mask_id(self) -> int:
        """The greatest digit: something of the next step is still masked."""
        return int(self.digits.view(-1)[list(self.steps[self.step].reveal)].max())

    def _other_canvas(self) -> Tensor:
        if not self.sampler.guidance:
            return self.steps[self.step - 1].undo(self.digits, self._mask_id)
        free, own = torch.full_like(self.digits, self._mask_id), [*self.steps.order]
        free.view(-1)[own] = self.digits.view(-1)[own]
        return free

    def _weights(self, step: int) -> tuple[float, ...]:
        return weights(self.steps, step) if self.sampler.high_order and step < len(self.steps) else ()

    def _positions(self, first: int, stop: int) -> list[int]:
        digits = self.digits.shape[1]
        return sorted({each // digits for step in self.steps[first:stop] for each in step.reveal})

    def _to_read(self, first: int, stop: int) -> list[int]:
        """The positions that steps need; in confidence order those of the block that are still masked."""
        if self.steps.by_confidence:
            return [*masked(self.digits, self.steps[first].reveal, self._mask_id)]
        return self._positions(first, stop)

    def _lanes(self, evaluated: "Evaluated[ActiveSample]", features: Tensor) -> list[Lane]:
        """Its evaluated states, but the one of the second prediction."""
        other = self._second(evaluated, features)
        states = [*zip(evaluated.states, evaluated.rows(), strict=True)][self._lacks_other :]
        return [Lane(self.plan, self.index, state.step, state.canvas, rows, other) for state, rows in states]

    def _second(self, evaluated: "Evaluated[ActiveSample]", features: Tensor) -> Features | None:
        """The second prediction of the next step, if it is known or has just been evaluated."""
        if not self._lacks_other:
            return self.other
        return Features(self.step, evaluated.states[0].positions, take_rows(features, [*evaluated.rows()[0].values()]))

    def _outcome(
        self,
        evaluated: "Evaluated[ActiveSample]",
        features: Tensor,
        lanes: Sequence[Lane],
        kept: Sequence[Drawn],
        drafts: tuple[Reveal, ...],
        candidates: tuple[tuple[Candidates, ...], ...],
    ) -> Outcome:
        if not lanes:
            return Outcome((), states=1, steps=0, other=self._second(evaluated, features))
        other = None
        if self._weights(self.step + 1):
            positions = self._positions(self.step + 1, self.step + 2)
            rows = [lanes[0].rows[each] for each in positions]
            other = Features(self.step + 1, positions, take_rows(features, rows))
        rows_read = kept[0].rows if isinstance(kept[0], Reveal) else 0
        if self.steps.by_confidence:
            rows_read = len(lanes[0].rows)
        all_rows = rows_read * len(lanes) + sum(each.rows for each in drafts)
        bounded = self.sampler.by_bound
        states = len(evaluated.states)
        return Outcome(tuple(kept), states, len(kept), rows_read, all_rows, drafts, candidates, other, bounded)


def sample(model: Model, /, **request: Any) -> list[Sample]:  # noqa: ANN401 — the fields of GenerationRequest
    """Generate without a server: takes what POST /generate takes, draws what the server draws.

    Args:
        model: an open bundle.
        **request: the fields of `GenerationRequest`, for example prompt, max_tokens, n, seed, sampler.

    Raises:
        ValueError: a field is out of range (pydantic's ValidationError), does not fit the model (`RequestError`),
            or what is given has probability zero (`SamplingError`).
    """
    return run(model, make_plan(model, GenerationRequest.model_validate(request)))


def run(
    model: Model, plan: Plan, after_evaluation: Callable[[list[ActiveSample]], None] = lambda _: None
) -> list[Sample]:
    """Draw all samples of one plan.

    Args:
        model: the model to evaluate.
        plan: the plan of one request.
        after_evaluation: is called with all samples before the first evaluation and after each.

    Raises:
        SamplingError: a sample cannot continue.
    """
    samples = [ActiveSample.start(model, plan, index) for index in range(len(plan.schedules))]
    after_evaluation(samples)
    while running := [each for each in samples if not each.finished]:
        advance(model, running)
        after_evaluation(samples)
    return [read_sample(model, plan, each.index, each.digits, each.log) for each in samples]
