"""What a model is worth: the valid bound on held-out text, whether it copies, the share of its texts that hold."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from unmask_diffusion import PrimeDenoiser, SubTokenizer

from training.network import features
from training.objective import Objective, corrupt, spread_rates, token_losses

BATCH = 32
SAMPLES_TOGETHER = 32


@dataclass(frozen=True)
class Model:
    """A network and the digits of its classes."""

    denoiser: PrimeDenoiser
    sub_tokenizer: SubTokenizer


@torch.no_grad()
def held_out_loss(
    network: PrimeDenoiser, codes: Tensor, ids: Tensor, objective: Objective, seed: int, precision: torch.dtype
) -> float:
    """Estimate the mean loss of canvases ids [N, L] in nats a canvas: with `marginals` the valid bound.

    Every canvas is masked once; the counts of masked sub-tokens are spread evenly over all canvases.
    """
    generator = torch.Generator().manual_seed(seed)
    corrupted = corrupt(codes[ids], network.shape.base, spread_rates(len(ids), 0, generator), generator)
    total = 0.0
    for start in range(0, len(ids), BATCH):
        part = slice(start, start + BATCH)
        hidden = corrupted.hidden[part].flatten(0, 1)
        rows = hidden.any(-1).nonzero()[:, 0]
        x = features(network, corrupted.digits[part], rows, precision)
        for chunk in range(0, len(rows), 512):
            chosen = rows[chunk : chunk + 512]
            logits = network.head(x[chunk : chunk + 512])
            losses = token_losses(logits, ids[part].flatten()[chosen], hidden[chosen], codes, objective)
            weights = corrupted.weights[part].repeat_interleave(ids.shape[1])[chosen]
            total += float((losses * weights).sum())
    return total * ids.shape[1]


@torch.no_grad()
def share_copied(network: PrimeDenoiser, codes: Tensor, ids: Tensor, among: set[int]) -> float:
    """Hide one of several mentions of a word, everything else being visible: the share that is named right.

    Args:
        network: the model.
        codes: int64 [C, l], its classes' digits.
        ids: int64 [N, L].
        among: the words that are asked for, for example all names.
    """
    canvases, rows, answers = [], [], []
    for line in ids.tolist():
        mentions = Counter(token for token in line if token in among)
        for word in (word for word, count in mentions.items() if count >= 3):
            position = [i for i, token in enumerate(line) if token == word][mentions[word] // 2]
            digits = codes[torch.tensor(line)].clone()
            digits[position] = network.shape.base
            canvases.append(digits)
            rows.append(torch.tensor([position]))
            answers.append(word)
    if not canvases:
        return float("nan")
    right = 0
    for start in range(0, len(canvases), BATCH):
        part = slice(start, start + BATCH)
        best = network.head(network.trunk(canvases[part], rows[part])).argmax(-1)
        right += int((best == torch.tensor(answers[part])).sum())
    return right / len(canvases)


@dataclass(frozen=True)
class Order:
    """The order in which sub-tokens are revealed, the groups that share an evaluation, the temperature of the draws."""

    block: int | None = None  # tokens in a block; blocks from left to right, random order inside; None for one block
    temperature: float = 1.0
    steps: int | None = None  # groups T, the i-th of which ends at the share (i/T)^clock; None: one sub-token each
    clock: int = 1

    def positions(self, canvases: int, length: int, digits: int, generator: torch.Generator) -> Tensor:
        """Positions of sub-tokens in the order of their reveal, int64 [canvases, length · digits]."""
        place = torch.arange(length * digits)
        block = place // (digits * (self.block or length))
        return (torch.rand(canvases, len(place), generator=generator) + block).argsort(1)

    def ends(self, total: int) -> list[int]:
        """Where each group of `total` reveals ends, as the server cuts them: every group has a reveal."""
        if self.steps is None:
            return list(range(1, total + 1))
        return [max(i, total * i**self.clock // self.steps**self.clock) for i in range(1, self.steps + 1)]

    @torch.no_grad()
    def draw(self, model: Model, count: int, generator: torch.Generator) -> Tensor:
        """Canvases from nothing, int64 [count, L].

        Of each token of a group a class is drawn among those that agree with the token's revealed digits, and the
        digits of the group are kept of it.
        """
        network, codes = model.denoiser, model.sub_tokenizer.codes
        length, digits_a_token, base = network.length, codes.shape[1], network.shape.base
        digits = torch.full((count * length, digits_a_token), base)
        canvas = torch.arange(count)[:, None] * length
        positions = self.positions(count, length, digits_a_token, generator)
        start = 0
        for end in self.ends(length * digits_a_token):
            places = positions[:, start:end]
            start = end
            revealed = torch.zeros_like(digits, dtype=torch.bool)
            revealed[canvas + places // digits_a_token, places % digits_a_token] = True
            rows = revealed.any(-1).nonzero()[:, 0]
            x = features(network, digits.view(count, length, -1), rows, torch.float32)
            known = digits[rows, None]  # [N, 1, l]
            consistent = ((codes == known) | (known == base)).all(-1)
            logits = (network.head(x) / self.temperature).masked_fill(~consistent, -torch.inf)
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
            digits[rows] = torch.where(revealed[rows], codes[drawn], digits[rows])
        return (digits.view(count, length, 1, -1) == codes).all(-1).int().argmax(-1)


def free_samples(model: Model, order: Order, count: int, seed: int) -> Iterator[Tensor]:
    """Canvases of the longest length from nothing, int64 [N, L], a few at a time.

    The training-time forward pass makes it faster than the server's sampler.
    """
    for start in range(0, count, SAMPLES_TOGETHER):
        yield order.draw(model, min(SAMPLES_TOGETHER, count - start), torch.Generator().manual_seed(seed + start))


def texts_of(canvases: Tensor, tokenizer: Tokenizer, end_token_id: int | None) -> list[str]:
    """The text of each canvas [N, L], up to its end token."""
    lines = canvases.tolist()
    whole = [line[: line.index(end_token_id)] if end_token_id in line else line for line in lines]
    texts: list[str] = tokenizer.decode_batch(whole, skip_special_tokens=False)
    return texts


def seconds_per_sample(model: Model, order: Order) -> float:
    """Estimate how long a free sample takes, from one evaluation of the network."""
    length, digits_a_token = model.denoiser.length, model.sub_tokenizer.codes.shape[1]
    digits = torch.full((SAMPLES_TOGETHER, length, digits_a_token), model.denoiser.shape.base)
    rows = torch.arange(SAMPLES_TOGETHER)
    start = time.perf_counter()
    with torch.no_grad():
        features(model.denoiser, digits, rows, torch.float32)
    return (time.perf_counter() - start) * len(order.ends(length * digits_a_token)) / SAMPLES_TOGETHER
