"""A score is a plan whose digits are known: they are read where a sampler would draw them.

plan  = tokens + seed → the passes: one window, revealed in one random order
log   = the readouts so far, each of some evaluations of a pass
state = plan + log, nothing else
"""

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from unmask_kernels import Purpose, random_uniform

from unmask_diffusion.model import Outline
from unmask_diffusion.plan import DRAWN_SEED_LIMIT
from unmask_diffusion.request import MAX_BUDGET, MAX_SAMPLES, RequestError, ScoreRequest, token_ids
from unmask_diffusion.schedule import block_order, event_of, hitting_times

# mask rates of a pass of the integral, where the budget allows
RATES = 16
# a standard error needs two
LEAST_REPLICATES = 2
# the error falls with the root of their number: more are not worth their memory in a log
MAX_REPLICATES = 1024
# numbers by token that a log may hold
MAX_NUMBERS = 2**18
# degrees of freedom of a spread that may stop a score: with fewer, stopping where chance makes it smallest gives
# standard errors that are far too small
DEGREES_OF_FREEDOM = 7
# replicates where no budget is given: without a wished standard error, and with one
REPLICATES = {"orders": (4, 32), "integral": (8, 64), "left_to_right": (1, 1)}


@dataclass(frozen=True)
class Window:
    """A part of a text that the model can see at once."""

    start: int  # position of its first token in the text
    scored: tuple[int, ...]  # positions within the window, ascending; all others are given


def windows_of(scored: Sequence[bool], length: int, overlap: int) -> tuple[Window, ...]:
    """Cover a text by windows, so that each token to score is scored in exactly one.

    A text's probability is the product over the windows, in their order, of the probability of what is new in a window
    given what it shares with those before it: the chain rule with a context cut to the overlap. All windows of a long
    text are equally long; the last one reaches further back, since more context costs nothing.

    Args:
        scored: for each token of the text whether it is to be scored.
        length: tokens of a window.
        overlap: tokens that a window shares with the one before, below `length`.
    """
    if len(scored) <= length:
        return (Window(0, tuple(position for position, wanted in enumerate(scored) if wanted)),)
    last = len(scored) - length
    starts = [*range(0, last, length - overlap), last]
    windows, covered = [], 0
    for start in starts:
        new = tuple(position - start for position in range(covered, start + length) if scored[position])
        covered = start + length
        if new:
            windows.append(Window(start, new))
    return tuple(windows)


@dataclass(frozen=True)
class Pass:
    """One window, revealed in one random order and read on the way."""

    index: int  # among the plan's passes
    window: Window
    order: tuple[int, ...]  # the sub-tokens to score (position in the window · l + j), in the order of their reveal
    starts: tuple[int, ...]  # for each state (network evaluation), how many of them are revealed; ascending
    reads: int | None  # number of sub-tokens that a state reads, the next of the order; None: all that are masked

    def masked(self, step: int) -> tuple[int, ...]:
        return self.order[self.starts[step] :]

    def read(self, step: int) -> tuple[int, ...]:
        start = self.starts[step]
        return self.order[start:] if self.reads is None else self.order[start : start + self.reads]

    def weight(self, step: int) -> float:
        """Weight in the chain's sum of each sub-token that is read at a state.

        With all m of n masked sub-tokens read, their mean stands for the one that comes next in a random order, and the
        states for all n: n / (m · states). It is the integral over t of 1/t · E[sum of masked], t being m / n: given
        how many are masked, which are is uniform, so nothing but the variance of their number is left out.
        """
        return self.joint_weight(step) if self.reads is None else 1.0

    def joint_weight(self, step: int) -> float:
        """Weight in the published integrand's sum of the tokens that are not fully revealed at a state."""
        share = len(self.order) / len(self.starts) if self.reads is None else 1.0
        return share / len(self.masked(step))


@dataclass(frozen=True)
class ScorePlan:
    """What a score evaluates: passes, replicate by replicate and window by window.

    Replicates are independent, and the spread between them gives the standard error. A replicate of `orders` is two
    passes a window, an order and its reverse (with blocks, reversed within each block); of `integral` one pass with
    low-discrepancy mask rates. `left_to_right` has one replicate of one pass, which reads whole tokens.
    """

    request: ScoreRequest  # with its seed, and with ids for texts: the same request gives the same plan
    seed: int  # the request's, or the one that was drawn for it
    tokens: tuple[int, ...]  # ids of prompt, input and suffix
    windows: tuple[Window, ...]  # of these tokens
    overlap: int  # tokens that two windows share; 0 where there is only one
    length: int  # tokens of the canvas that the network sees
    sub_tokens_per_token: int  # l
    replicates: int  # at most; fewer where the wished standard error is reached earlier
    rates: int | None  # mask rates of a pass, at most one a sub-token; None: a pass reads the chain of its order

    @property
    def whole_tokens(self) -> bool:
        """Whether a state reads a token, all its digits together, instead of sub-tokens."""
        return units_of(self.request, digits=2) == 1

    @property
    def units_a_token(self) -> int:
        """Number of parts of a token that are revealed one after the other."""
        return units_of(self.request, self.sub_tokens_per_token)

    @property
    def passes_a_window(self) -> int:
        return 2 if self.request.estimator == "orders" else 1

    @property
    def least_replicates(self) -> int:
        """Number of replicates that give an estimate."""
        return least_replicates(self.request)

    @property
    def passes(self) -> int:
        return self.replicates * len(self.windows) * self.passes_a_window

    @property
    def window_tokens(self) -> int:
        return min(self.length, len(self.tokens))

    @property
    def scored_positions(self) -> list[int]:
        """Positions of the tokens to score among the plan's tokens, ascending."""
        return [window.start + position for window in self.windows for position in window.scored]

    @cached_property
    def scored_tokens(self) -> int:
        return sum(len(window.scored) for window in self.windows)

    @property
    def sub_tokens(self) -> int:
        return self.scored_tokens * self.sub_tokens_per_token

    @cached_property
    def evaluations_a_replicate(self) -> int:
        return _evaluations_a_replicate(self.request, self.windows, self.units_a_token, self.rates)

    @property
    def network_evaluations(self) -> int:
        return self.replicates * self.evaluations_a_replicate

    @property
    def rows(self) -> float:
        """Expected number of rows of logits that all evaluations read."""
        if self.rates is None and not self.request.published_integrand:
            return float(self.network_evaluations)
        masked = self.units_a_token / (self.units_a_token + 1)  # on the average over a pass
        return self.network_evaluations * masked * self.scored_tokens / len(self.windows)

    def replicate_of(self, index: int) -> int:
        return index // (len(self.windows) * self.passes_a_window)

    def window_of(self, index: int) -> int:
        return index // self.passes_a_window % len(self.windows)

    def evaluations_of(self, index: int) -> int:
        window = self.windows[self.window_of(index)]
        return _evaluations(window, self.units_a_token, self.rates)

    def pass_of(self, index: int) -> Pass:
        """Draw a pass: a function of (plan, index) alone."""
        pair, reverse = divmod(index, self.passes_a_window)
        # not the streams of a generation's samples: the order in which a text was drawn is not random for it
        stream = MAX_SAMPLES + pair
        window = self.windows[self.window_of(index)]
        units, digits = self.units_a_token, self.sub_tokens_per_token
        size = digits // units  # sub-tokens of a unit
        positions = torch.tensor(window.scored, dtype=torch.int64)
        order = (positions[:, None] * digits + torch.arange(0, digits, size)).flatten()  # the first of each unit
        if self.request.estimator != "left_to_right":
            block = (self.request.block_length or len(positions)) * units
            order = order[block_order(hitting_times(self.seed, stream, order), block)]
            if reverse:
                order = torch.cat([part.flip(0) for part in order.split(block)])
        count = self.evaluations_of(index)
        starts = low_discrepancy_starts(_shift(self.seed, stream), len(order), count) if self.rates else range(count)
        sub_tokens: list[int] = (order[:, None] + torch.arange(size)).flatten().tolist()
        reads = size if self.rates is None else None
        return Pass(index, window, tuple(sub_tokens), tuple(start * size for start in starts), reads)


def units_of(request: ScoreRequest, digits: int) -> int:
    """Number of parts of a token that a score reveals one after the other."""
    return 1 if request.unit == "token" or request.estimator == "left_to_right" else digits


def low_discrepancy_starts(shift: float, sub_tokens: int, count: int) -> list[int]:
    """How many of n sub-tokens are revealed at each of `count` ≤ n states: one in each stratum, all by one shift.

    With a shift that is uniform on (0, 1), each of 0 … n - 1 is as likely as any other over the strata together, so
    that the mean over the states is unbiased.
    """
    return [min(sub_tokens - 1, int(sub_tokens * (i + shift) / count)) for i in range(count)]


def _shift(seed: int, stream: int) -> float:
    seeds, events, indices = (torch.tensor([word]) for word in (seed, event_of(stream, 0), 1))  # 0 is a hitting time's
    return float(random_uniform(seeds, events, indices, Purpose.SCHEDULE))


def least_replicates(request: ScoreRequest) -> int:
    """Number of replicates that give an estimate: one order that is not random has no spread."""
    return 1 if request.estimator == "left_to_right" else LEAST_REPLICATES


def trusted_replicates(windows: int) -> int:
    """Replicates whose spread may stop a score: each but the first is one degree of freedom a window."""
    return 1 + math.ceil(DEGREES_OF_FREEDOM / windows)


def make_score_plan(model: Outline, request: ScoreRequest) -> ScorePlan:
    """Check a request against a model and cut its text into windows.

    Raises:
        RequestError: this model can never serve the request; the error names the field and the limit.
    """
    length = model.denoiser.length
    prompt, text, suffix = (token_ids(model, param, getattr(request, param)) for param in ("prompt", "input", "suffix"))
    given = _given(request, len(text))
    overlap = _overlap(request, length)
    scored = [False] * len(prompt) + [position not in given for position in range(len(text))] + [False] * len(suffix)
    windows = windows_of(scored, length, overlap)
    digits = model.sub_tokenizer.sub_tokens_per_token
    replicates, rates = _affordable(request, windows, units_of(request, digits))
    seed = secrets.randbelow(DRAWN_SEED_LIMIT) if request.seed is None else request.seed
    with_ids = request.model_copy(update={"seed": seed, "prompt": prompt, "input": text, "suffix": suffix})
    tokens = (*prompt, *text, *suffix)
    canvas = length if model.full_canvas else min(length, len(tokens))
    shared = overlap if len(windows) > 1 else 0
    return ScorePlan(with_ids, seed, tokens, windows, shared, canvas, digits, replicates, rates)


def _given(request: ScoreRequest, tokens: int) -> set[int]:
    if not tokens:
        raise RequestError("input", "input has no tokens: at least 1 is needed")
    given = set(request.given)
    if given and max(given) >= tokens:
        raise RequestError("given", f"given holds position {max(given)}; the input's positions are 0 … {tokens - 1}")
    if len(given) == tokens:
        raise RequestError("given", f"given holds all {tokens} tokens of the input: nothing is left to score")
    return given


def _overlap(request: ScoreRequest, length: int) -> int:
    overlap = length // 2 if request.overlap is None else request.overlap
    if overlap >= length:
        raise RequestError(
            "overlap", f"overlap is {overlap}; a window has {length} tokens, so it can be at most {length - 1}"
        )
    return overlap


def _affordable(request: ScoreRequest, windows: tuple[Window, ...], units: int) -> tuple[int, int | None]:
    """The number of replicates, and of mask rates of a pass, that the budget pays for."""
    rates = RATES if request.estimator == "integral" else None
    least = _evaluations_a_replicate(request, windows, units, None if rates is None else 1) * least_replicates(request)
    budget = MAX_BUDGET if request.budget is None else request.budget
    if least > budget:
        raise RequestError(*_too_small(request, least))
    if rates is not None:
        rates = min(rates, max(1, budget // (trusted_replicates(len(windows)) * len(windows))))
    affordable = min(MAX_REPLICATES, budget // _evaluations_a_replicate(request, windows, units, rates))
    if request.budget is None or request.estimator == "left_to_right":
        affordable = min(affordable, REPLICATES[request.estimator][request.standard_error_per_token is not None])
    numbered = request.per_token or request.logprobs is not None
    return (min(affordable, _numbers_fit(request, windows, units)) if numbered else affordable), rates


def _numbers_fit(request: ScoreRequest, windows: tuple[Window, ...], units: int) -> int:
    """The number of replicates whose numbers by token fit into a log."""
    tokens = sum(len(window.scored) for window in windows)
    # of a replicate, at most
    numbers_a_token = {"orders": 2 * units, "integral": 1, "left_to_right": 1 + 2 * (request.logprobs or 0)}[
        request.estimator
    ]
    least = least_replicates(request)
    if least * numbers_a_token * tokens > MAX_NUMBERS:
        limit = MAX_NUMBERS // (least * numbers_a_token)
        raise RequestError(
            "per_token", f"per_token is for inputs of at most {limit} tokens here; this one has {tokens}"
        )
    return MAX_NUMBERS // (numbers_a_token * tokens)


def _too_small(request: ScoreRequest, least: int) -> tuple[str, str]:
    """The field at fault where two replicates cost more than the budget, and the message."""
    what = "a standard error of this input" if least_replicates(request) > 1 else "this input"
    needs = f"{what} needs {least} network evaluations with estimator {request.estimator!r}"
    other = "" if request.estimator == "integral" else "; estimator 'integral' needs fewer"
    if request.budget is None:
        return "input", f"input is too long: {needs}, and the limit is {MAX_BUDGET}{other}"
    return "budget", f"budget is {request.budget}: {needs}{other}"


def _evaluations_a_replicate(request: ScoreRequest, windows: tuple[Window, ...], units: int, rates: int | None) -> int:
    passes = 2 if request.estimator == "orders" else 1
    return passes * sum(_evaluations(window, units, rates) for window in windows)


def _evaluations(window: Window, units: int, rates: int | None) -> int:
    parts = len(window.scored) * units
    return parts if rates is None else min(rates, parts)
