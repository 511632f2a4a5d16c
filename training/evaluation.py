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
    """A network with what text needs."""

    denoiser: PrimeDenoiser
    sub_tokenizer: SubTokenizer
    tokenizer: Tokenizer
    end_token_id: int | None


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
    """The order in which sub-tokens are revealed, one an evaluation, and the temperature of the draws."""

    block: int | None = None  # tokens in a block; blocks from left to right, random order inside; None for one block
    temperature: float = 1.0

    def positions(self, canvases: int, length: int, digits: int, generator: torch.Generator) -> Tensor:
        """Positions of sub-tokens in the order of their reveal, int64 [canvases, length · digits]."""
        place = torch.arange(length * digits)
        block = place // (digits * (self.block or length))
        return (torch.rand(canvases, len(place), generator=generator) + block).argsort(1)


@torch.no_grad()
def free_samples(model: Model, order: Order, count: int, seed: int) -> Iterator[list[str]]:
    """Texts from nothing on the longest canvas, a few at a time.

    The law is the one of exact first-hitting: each reveal draws a class among those that agree with the revealed digits
    of its token, and keeps one digit of it. The training-time forward pass makes it faster than the server's sampler.
    """
    for start in range(0, count, SAMPLES_TOGETHER):
        ids = _draw(model, order, min(SAMPLES_TOGETHER, count - start), torch.Generator().manual_seed(seed + start))
        yield [_text(model, line) for line in ids.tolist()]


def _draw(model: Model, order: Order, count: int, generator: torch.Generator) -> Tensor:
    network, codes = model.denoiser, model.sub_tokenizer.codes
    length, digits_a_token, base = network.length, codes.shape[1], network.shape.base
    digits, canvas = torch.full((count, length, digits_a_token), base), torch.arange(count)
    for place in order.positions(count, length, digits_a_token, generator).T:
        token, j = place // digits_a_token, place % digits_a_token
        x = features(network, digits, canvas * length + token, torch.float32)
        revealed = digits[canvas, token, None]  # [N, 1, l]
        consistent = ((codes == revealed) | (revealed == base)).all(-1)
        logits = (network.head(x) / order.temperature).masked_fill(~consistent, -torch.inf)
        drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
        digits[canvas, token, j] = codes[drawn, j]
    return (digits[:, :, None] == codes).all(-1).int().argmax(-1)


def _text(model: Model, ids: list[int]) -> str:
    if model.end_token_id in ids:
        ids = ids[: ids.index(model.end_token_id)]
    text: str = model.tokenizer.decode(ids, skip_special_tokens=False)
    return text


def seconds_per_sample(model: Model) -> float:
    """Estimate how long a free sample takes, from one evaluation of the network."""
    length, digits_a_token = model.denoiser.length, model.sub_tokenizer.codes.shape[1]
    digits = torch.full((SAMPLES_TOGETHER, length, digits_a_token), model.denoiser.shape.base)
    rows = torch.arange(SAMPLES_TOGETHER)
    start = time.perf_counter()
    with torch.no_grad():
        features(model.denoiser, digits, rows, torch.float32)
    return (time.perf_counter() - start) * length * digits_a_token / SAMPLES_TOGETHER
