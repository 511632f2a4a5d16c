"""What samples are worth, measured against the truth: a known distribution, a judge, or the model itself.

Each measure has a standard error. Of means over samples it is the usual one; of statistics of all samples together
(divergences, entropies) it is a jackknife's, which leaves out one sixteenth of the samples at a time. Such statistics
are biased by counting noise, the truth's own samples as much: compare with these, not with 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from unmask_diffusion import MarkovDenoiser, Model, SamplingError, TableDenoiser, score

Value = tuple[float, float]  # a measure and its standard error
GROUPS = 16  # of the jackknife
GRAM = 4  # tokens whose repetition is counted


@dataclass(frozen=True)
class Criterion:
    """A measure of samples, and which way is better."""

    name: str
    about: str  # what it is, in a line
    better: Literal["low", "high"] | None  # None: it says something, but neither way is better


class Truth(Protocol):
    """What samples are compared with. The first criterion ranks the samplers."""

    @property
    def criteria(self) -> Sequence[Criterion]:
        """Its measures; one of them is `ENTROPY`."""

    def draw(self, count: int, seed: int) -> Tensor | None:
        """Samples of the truth itself, int64 [count, L]; None where there is no truth but the model."""

    def values(self, tokens: Tensor) -> dict[str, Value]:
        """The measures of samples, int64 [N, L], by the names of the criteria.

        Raises:
            SamplingError: a sample has no probability.
        """


class Judge(Protocol):
    """A judge of what one model writes or draws, from outside of the model."""

    @property
    def criteria(self) -> Sequence[Criterion]:
        """Its measures."""

    def draw(self, count: int, seed: int) -> Tensor:
        """What the model was trained on, int64 [count, L]."""

    def values(self, tokens: Tensor) -> dict[str, Value]:
        """The measures of samples, int64 [N, L]."""


ENTROPY = "entropy"


def mean_and_error(values: Sequence[float] | Tensor) -> Value:
    """Mean and standard error of values of samples; the error of one value is 0."""
    numbers = torch.as_tensor(values, dtype=torch.float64)
    error = float(numbers.std()) / math.sqrt(len(numbers)) if len(numbers) > 1 else 0.0
    return float(numbers.mean()), error


def share_and_error(hits: Sequence[bool] | Tensor) -> Value:
    """The share of samples that have a property, and its standard error, with two of either kind added for it.

    So the error is not 0 where none, or all, have it (Agresti and Coull, 1998).
    """
    count, found = len(hits), int(sum(hits))
    share = (found + 2) / (count + 4)
    return found / count, math.sqrt(share * (1 - share) / (count + 4))


def jackknife(statistic: Callable[[Tensor], float], tokens: Tensor) -> Value:
    """A statistic of all samples, int64 [N, L], and its standard error: delete-a-group jackknife."""
    groups = min(GROUPS, len(tokens))
    group = torch.arange(len(tokens)) % groups
    error = 0.0
    if groups > 1:
        left = torch.tensor([statistic(tokens[group != each]) for each in range(groups)], dtype=torch.float64)
        error = math.sqrt((groups - 1) * float(left.var(correction=0)))
    return statistic(tokens), error


def entropy(counts: Tensor) -> float:
    """Entropy in nats of the frequencies that counts have among themselves."""
    shares = counts[counts > 0].double() / counts.sum()
    return float(-(shares * shares.log()).sum())


class MarkovTruth:
    """A Markov chain that is known: its transitions are compared, and its own probability of the samples."""

    criteria = (
        Criterion("bigrams", "divergence KL(bigrams of the samples ‖ bigrams of the chain), nats", "low"),
        Criterion("transitions", "total variation of the transitions from the chain's, weighted by use", "low"),
        Criterion("-log p", "of the samples by the chain, above the chain's own entropy, nats a token", None),
        Criterion(ENTROPY, "of a token given the one before it, in all samples, nats", None),
    )

    def __init__(self, chain: MarkovDenoiser, length: int) -> None:
        self.initial, self.transition, self.length = chain.initial, chain.transition, length
        state, states = chain.initial, []
        for _ in range(max(1, length - 1)):
            states.append(state)
            state = state @ chain.transition
        # of a bigram anywhere in a sequence, [C, C]
        self.bigrams = torch.stack(states).mean(0)[:, None] * chain.transition

    def draw(self, count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        tokens = [torch.multinomial(self.initial, count, replacement=True, generator=generator)]
        for _ in range(self.length - 1):
            tokens.append(torch.multinomial(self.transition[tokens[-1]], 1, generator=generator)[:, 0])
        return torch.stack(tokens, 1)

    def values(self, tokens: Tensor) -> dict[str, Value]:
        nats, error = mean_and_error(_finite(self.nats(tokens)) / self.length)
        return {
            "transitions": jackknife(self.total_variation, tokens),
            "bigrams": jackknife(self.divergence, tokens),
            "-log p": (nats - self.entropy_a_token, error),
            ENTROPY: jackknife(lambda some: entropy(self.counts(some)) - entropy(self.counts(some).sum(1)), tokens),
        }

    def counts(self, tokens: Tensor) -> Tensor:
        """How often each bigram is in samples, [C, C]."""
        classes = len(self.initial)
        pairs = (tokens[:, :-1] * classes + tokens[:, 1:]).flatten()
        return torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    def total_variation(self, tokens: Tensor) -> float:
        """Total variation of the transitions after a token, as a mean over the tokens of the samples."""
        drawn = self.counts(tokens).double()
        drawn /= drawn.sum()
        return float((drawn - drawn.sum(1, keepdim=True) * self.transition).abs().sum()) / 2

    def divergence(self, tokens: Tensor) -> float:
        """KL(bigrams of samples ‖ bigrams of the chain) in nats."""
        drawn = self.counts(tokens).double()
        drawn /= drawn.sum()
        return float(torch.where(drawn > 0, drawn * (drawn / self.bigrams).log(), 0.0).sum())

    def nats(self, tokens: Tensor) -> Tensor:
        """-log p of samples, int64 [N, L] → float64 [N]."""
        steps = self.transition[tokens[:, :-1], tokens[:, 1:]].log().sum(1)
        return -(self.initial[tokens[:, 0]].log() + steps)

    @property
    def entropy_a_token(self) -> float:
        """The entropy of a sequence divided by its length, in nats."""
        first = -torch.special.xlogy(self.initial, self.initial).sum()
        of_rows = -torch.special.xlogy(self.transition, self.transition).sum(1)
        others = (self.length - 1) * (self.bigrams.sum(1) @ of_rows)
        return float(first + others) / self.length


class TableTruth:
    """A joint distribution that is known as a table."""

    criteria = (
        Criterion("distribution", "total variation of the samples' distribution from the table", "low"),
        Criterion("-log p", "of the samples by the table, above the table's own entropy, nats a token", None),
        Criterion(ENTROPY, "of whole samples, nats", None),
    )

    def __init__(self, table: TableDenoiser, length: int) -> None:
        weights = table.probabilities
        if length < weights.ndim:
            weights = weights.sum(tuple(range(length, weights.ndim)))
        self.probabilities = weights / weights.sum()

    def draw(self, count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.multinomial(self.probabilities.flatten(), count, replacement=True, generator=generator)
        return torch.stack(torch.unravel_index(drawn, self.probabilities.shape), 1)

    def values(self, tokens: Tensor) -> dict[str, Value]:
        truth = self.probabilities
        of_truth = -float(torch.special.xlogy(truth, truth).sum())
        nats, error = mean_and_error(_finite(-truth[tuple(tokens.T)].log()))
        length = truth.ndim
        return {
            "distribution": jackknife(self.total_variation, tokens),
            "-log p": ((nats - of_truth) / length, error / length),
            ENTROPY: jackknife(lambda some: entropy(self.counts(some)), tokens),
        }

    def counts(self, tokens: Tensor) -> Tensor:
        """How often each sample was drawn, flat."""
        index = torch.zeros(len(tokens), dtype=torch.int64)
        for position, size in enumerate(self.probabilities.shape):
            index = index * size + tokens[:, position]
        return torch.bincount(index, minlength=self.probabilities.numel())

    def total_variation(self, tokens: Tensor) -> float:
        drawn = self.counts(tokens).double() / len(tokens)
        return float((drawn - self.probabilities.flatten()).abs().sum()) / 2


class ModelTruth:
    """Any model: a judge, if there is one, and the model itself, whose exact samples are then the truth."""

    def __init__(self, model: Model, judge: Judge | None, scored: int) -> None:
        """`scored` network evaluations bound the probability of each sample."""
        self.model, self.judge, self.scored = model, judge, scored
        self.criteria: tuple[Criterion, ...] = (
            *(judge.criteria if judge else ()),
            Criterion("-log p", "bound under the model itself, nats a token", None if judge else "low"),
            Criterion(ENTROPY, "of the frequencies of all tokens in all samples, nats", None),
        )
        if model.image is None:
            about = f"share of a sample's runs of {GRAM} tokens that it has had before"
            self.criteria += (Criterion("repetition", about, None),)

    def draw(self, count: int, seed: int) -> Tensor | None:
        return self.judge.draw(count, seed) if self.judge else None

    def values(self, tokens: Tensor) -> dict[str, Value]:
        nats = [
            score(self.model, input=ids, estimator="integral", budget=self.scored, seed=seed).nats_per_token
            for seed, ids in enumerate(tokens.tolist())
        ]
        texts = [before_the_end(ids, self.model.end_token_ids) for ids in tokens]
        found = self.judge.values(tokens) if self.judge else {}
        found["-log p"] = mean_and_error(nats)
        # texts of different lengths in a matrix, -1 behind their ends
        padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=-1)
        found[ENTROPY] = jackknife(lambda some: entropy(torch.bincount(some[some >= 0])), padded)
        if self.model.image is None:
            found["repetition"] = mean_and_error([repetition(ids) for ids in texts])
        return found


def _finite(nats: Tensor) -> Tensor:
    if bool(nats.isinf().any()):
        raise SamplingError(f"{int(nats.isinf().sum())} of {len(nats)} samples have probability zero")
    return nats


def before_the_end(ids: Tensor, end_token_ids: Sequence[int]) -> Tensor:
    """The tokens before the first end token, int64 [L] → [≤ L]; at least one."""
    ends = torch.isin(ids, torch.tensor(end_token_ids, dtype=ids.dtype)).nonzero()
    return ids[: max(1, int(ends[0]))] if len(ends) else ids


def repetition(ids: Tensor) -> float:
    """The share of runs of `GRAM` tokens in a sample, int64 [L], that stand in it before; 0 where it is too short."""
    if len(ids) < GRAM:
        return 0.0
    runs = ids.unfold(0, GRAM, 1)
    return 1 - len(runs.unique(dim=0)) / len(runs)


def truth_of(model: Model, length: int, judge: Judge | None = None, scored: int = 16) -> Truth:
    """What a model's samples of `length` tokens are compared with: the best that there is."""
    denoiser = model.denoiser
    if isinstance(denoiser, MarkovDenoiser):
        return MarkovTruth(denoiser, length)
    if isinstance(denoiser, TableDenoiser):
        return TableTruth(denoiser, length)
    return ModelTruth(model, judge, scored)


def values_of(values: Mapping[str, Sequence[float]]) -> dict[str, Value]:
    """Values as they are read back from JSON."""
    return {name: (value, error) for name, (value, error) in values.items()}
