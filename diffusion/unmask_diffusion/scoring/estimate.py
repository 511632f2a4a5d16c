"""From readouts to a likelihood with its standard error, per token, word and byte; and scoring without a server."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from unmask_diffusion.log import UNITS_A_NAT, Readout, SampleError
from unmask_diffusion.model import Model, Outline
from unmask_diffusion.request import ScoreRequest
from unmask_diffusion.scoring.passes import ActivePass
from unmask_diffusion.scoring.plan import ScorePlan, make_score_plan, trusted_replicates
from unmask_diffusion.work import SamplingError, evaluate

# tokens of canvases that share an evaluation by default
TOKENS_AT_ONCE = 4096


@dataclass(frozen=True)
class Estimate:
    """A mean over replicates, in nats, of all that is scored."""

    nats: float  # the mean
    standard_error: float  # of the mean, from the spread between replicates, window by window


class Tally:
    """The sums of what has been read of a plan. They are whole numbers: the order of readouts does not change them."""

    def __init__(self, plan: ScorePlan) -> None:
        self.plan = plan
        self.evaluations = 0  # number of evaluations that have been read, all replicates
        self.replicates = 0  # number of complete replicates, in their order; never more than are needed
        # Whether nothing more need be read: the plan is complete, or the wished standard error is reached. It depends
        # on the replicates in their order alone, not on what else has been read, so it is reproducible.
        self.enough = False
        self._begun: dict[int, _Replicate] = {}
        self._bound, self._published = (_Moments(len(plan.windows)) for _ in range(2))
        self._estimate: Estimate | None = None
        self._by_token: Counter[int] = Counter()
        self._likeliest: dict[int, tuple[tuple[int, int], ...]] = {}

    def note(self, readout: Readout) -> None:
        self.evaluations += readout.evaluations
        number = self.plan.replicate_of(readout.index)
        if number not in self._begun:
            self._begun[number] = _Replicate(self.plan)
        self._begun[number].note(readout)
        self._likeliest.update(readout.likeliest)
        while not self.enough and self.replicates in self._begun and not self._begun[self.replicates].left:
            self._complete(self._begun.pop(self.replicates))

    def steps_done(self, index: int) -> int:
        number = self.plan.replicate_of(index)
        if number < self.replicates:
            return self.plan.evaluations_of(index)
        return self._begun[number].steps[index] if number in self._begun else 0

    def estimate(self) -> Estimate | None:
        """The bound; None before there is a standard error."""
        return self._estimate

    def published(self) -> Estimate | None:
        """The published integrand's mean, which is no bound; None before there is a standard error."""
        return self._published.estimate(self.replicates, self._units, self.plan.least_replicates)

    def by_token(self) -> dict[int, float]:
        """Nats of each scored token by its position among the plan's tokens; they sum to the bound.

        With few mask rates a token may happen to be revealed at all of them; its nats are 0 then.
        """
        scale = self._units * max(1, self.replicates)
        return {position: self._by_token[position] / scale for position in self.plan.scored_positions}

    def likeliest(self) -> dict[int, tuple[tuple[int, float], ...]]:
        """The likeliest classes in the place of each token, with their nats, by position among the plan's tokens."""
        return {
            position: tuple((token, units / self._units) for token, units in classes)
            for position, classes in sorted(self._likeliest.items())
        }

    @property
    def _units(self) -> int:
        """Units of a nat of a replicate: it is the mean of its passes, and sums them."""
        return UNITS_A_NAT * self.plan.passes_a_window

    def _complete(self, replicate: "_Replicate") -> None:
        self.replicates += 1
        self._bound.add(replicate.units)
        self._estimate = self._bound.estimate(self.replicates, self._units, self.plan.least_replicates)
        self._published.add(replicate.joint_units)
        self._by_token.update(replicate.by_token)
        self.enough = self.replicates == self.plan.replicates or self._precise()

    def _precise(self) -> bool:
        wished = self.plan.request.standard_error_per_token
        if wished is None or self.replicates < trusted_replicates(len(self.plan.windows)):
            return False
        estimate = self.estimate()
        return estimate is not None and estimate.standard_error <= wished * self.plan.scored_tokens


class _Replicate:
    """What has been read of a replicate."""

    def __init__(self, plan: ScorePlan) -> None:
        self._plan = plan
        self.left = plan.evaluations_a_replicate  # number of evaluations until it is complete
        # sums of its passes, window by window: of the bound, and of the published integrand
        self.units, self.joint_units = ([0] * len(plan.windows) for _ in range(2))
        self.by_token: Counter[int] = Counter()  # units of the bound, by position
        self.steps: Counter[int] = Counter()  # number of evaluations that have been read, by pass

    def note(self, readout: Readout) -> None:
        window = self._plan.window_of(readout.index)
        self.left -= readout.evaluations
        self.units[window] += readout.units
        self.joint_units[window] += readout.joint_units
        self.by_token.update(dict(readout.by_token))
        self.steps[readout.index] += readout.evaluations


class _Moments:
    """Sums of replicates and of their squares, in whole numbers: exact, however many they are."""

    def __init__(self, windows: int) -> None:
        self._sums = [0] * windows
        self._squares = 0

    def add(self, units: Sequence[int]) -> None:
        self._sums = [before + more for before, more in zip(self._sums, units, strict=True)]
        self._squares += sum(each * each for each in units)

    def estimate(self, count: int, units_a_nat: int, least: int) -> Estimate | None:
        """The sum over windows of their means over `count` replicates; windows are independent, so variances add.

        None for fewer than `least` replicates. Where one is enough, it is exact.
        """
        if count < least:
            return None
        if count == 1:
            return Estimate(sum(self._sums) / units_a_nat, 0.0)
        # (count - 1) · count · the windows' variances
        spread = count * self._squares - sum(each * each for each in self._sums)
        variance = spread / (count * count * (count - 1) * units_a_nat * units_a_nat)
        return Estimate(sum(self._sums) / (count * units_a_nat), math.sqrt(variance))


@dataclass(frozen=True)
class TokenNats:
    """What one token contributes to the bound."""

    position: int  # in the input
    token: int  # its id
    nats: float
    likeliest: tuple[tuple[int, float], ...] = ()  # classes in its place, with their nats; only where requested


@dataclass(frozen=True)
class Score:
    """A bound on -log p(input | prompt, suffix, given), and what follows from it.

    The bound holds in expectation over orders, for what the exact first-hitting sampler draws, with the request's
    block_length; where a text is cut into windows, for the product of the windows' conditionals.
    """

    bound: Estimate
    published: Estimate | None  # the published integrand's mean, which is no bound; only where requested
    tokens: int  # number of scored tokens
    words: int | None  # number of their words, by white space; None without a tokenizer or with `given`, as `bytes`
    bytes: int | None  # length of their text in UTF-8
    replicates: int  # number of averaged replicates
    network_evaluations: int  # number of network evaluations of these replicates
    token_nats: tuple[TokenNats, ...]  # only where requested

    @property
    def nats_per_token(self) -> float:
        return self.bound.nats / self.tokens

    @property
    def standard_error_per_token(self) -> float:
        return self.bound.standard_error / self.tokens

    @property
    def perplexity_per_token(self) -> float | None:
        """exp(nats per token); None above the largest double."""
        return _exp(self.nats_per_token)

    @property
    def perplexity_per_word(self) -> float | None:
        """exp(nats per word); None above the largest double, or without words."""
        return _exp(self.bound.nats / self.words) if self.words else None

    @property
    def bits_per_byte(self) -> float | None:
        return self.bound.nats / math.log(2) / self.bytes if self.bytes else None


def score(model: Model, /, **request: Any) -> Score:  # noqa: ANN401 — the fields of ScoreRequest
    """Bound a text's likelihood without a server: takes what POST /score takes, reads what the server reads.

    Args:
        model: an open bundle.
        **request: the fields of `ScoreRequest`: input, and for example prompt, estimator, budget, seed.

    Raises:
        ValueError: a field is out of range (pydantic's ValidationError), does not fit the model (`RequestError`), or
            the input has probability zero (`SamplingError`).
    """
    return run_score(model, make_score_plan(model, ScoreRequest.model_validate(request)))


def run_score(
    model: Model,
    plan: ScorePlan,
    after_evaluation: Callable[[Tally], None] = lambda _: None,
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> Score:
    """Score one plan.

    Args:
        model: the model to evaluate.
        plan: the plan of one request.
        after_evaluation: is called with what has been read after each evaluation.
        tokens_at_once: tokens of the canvases of an evaluation, about.

    Raises:
        SamplingError: the input has probability zero, or the model gave invalid logits.
    """
    tally, running = Tally(plan), list[ActivePass]()
    waiting = (ActivePass(model, plan, index) for index in range(plan.passes))
    budget = max(1, tokens_at_once // plan.length)
    while not tally.enough:
        running += islice(waiting, budget - len(running))
        _read(model, running, budget, tally)
        running = [active for active in running if not active.finished]
        after_evaluation(tally)
    return read_score(model, tally)


def read_score(model: Outline, tally: Tally) -> Score:
    """The score that a complete tally gives."""
    plan, bound = tally.plan, tally.estimate()
    if bound is None:
        raise ValueError("fewer replicates than a standard error needs")
    words, count = _text_sizes(model, plan)
    numbered = plan.request.per_token or plan.request.logprobs is not None
    first, by_token, likeliest = len(plan.request.prompt), tally.by_token() if numbered else {}, tally.likeliest()
    return Score(
        bound,
        tally.published() if plan.request.published_integrand else None,
        plan.scored_tokens,
        words,
        count,
        tally.replicates,
        plan.evaluations_a_replicate * tally.replicates,
        tuple(TokenNats(i - first, plan.tokens[i], nats, likeliest.get(i, ())) for i, nats in by_token.items()),
    )


def _read(model: Model, running: Sequence[ActivePass], budget: int, tally: Tally) -> None:
    """Evaluate the earliest passes to their ends first: an early stop looks at complete replicates.

    An error of a pass counts only if the pass is needed: those behind the last needed one may share its evaluation.
    """
    works: list[ActivePass] = []
    budgets: list[int] = []
    for active in running:
        if states := min(budget - sum(budgets), active.evaluations_left):
            works.append(active)
            budgets.append(states)
    for active, outcome in zip(works, evaluate(model, works, budgets), strict=True):
        if tally.enough:
            return
        for entry in active.apply(outcome):
            if isinstance(entry, SampleError):
                raise SamplingError(entry.message)
            if isinstance(entry, Readout):
                tally.note(entry)


def _text_sizes(model: Outline, plan: ScorePlan) -> tuple[int | None, int | None]:
    if model.tokenizer is None or plan.request.given:
        return None, None
    scored = [plan.tokens[position] for position in plan.scored_positions]
    (text,) = model.tokenizer.decode_batch(
        [scored], skip_special_tokens=True
    )  # unlike `decode` it lets other threads run
    return len(text.split()), len(text.encode())


def _exp(nats: float) -> float | None:
    try:
        return math.exp(nats)
    except OverflowError:
        return None
