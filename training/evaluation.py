"""What a model is worth: the valid bound on held-out text, whether it copies, the share of its texts that hold."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from unmask_diffusion import PrimeDenoiser, SubTokenizer, sample

from training.network import features
from training.objective import Objective, corrupt, spread_rates, token_losses

BATCH = 32
SAMPLES_TOGETHER = 16


@dataclass(frozen=True)
class Model:
    """A network with what text needs, in the shape that the sampler asks for (`unmask_diffusion.Model`)."""

    denoiser: PrimeDenoiser
    sub_tokenizer: SubTokenizer
    tokenizer: Tokenizer
    end_token_id: int | None
    full_canvas: bool = False


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


def free_samples(model: Model, count: int, seed: int) -> Iterator[list[str]]:
    """Texts from nothing at temperature 1 by the exact first-hitting sampler, a few at a time."""
    for start in range(0, count, SAMPLES_TOGETHER):
        together = min(SAMPLES_TOGETHER, count - start)
        drawn = sample(model, max_tokens=model.denoiser.length, n=together, seed=seed + start)
        yield [each.text or "" for each in drawn]


def seconds_per_sample(model: Model, evaluations: int = 2) -> float:
    """Estimate how long a free sample takes, from a few evaluations of the network."""
    sampler = {"name": "first_hitting", "steps": evaluations}
    start = time.perf_counter()
    sample(model, max_tokens=model.denoiser.length, n=SAMPLES_TOGETHER, seed=0, sampler=sampler)
    digits = model.denoiser.length * model.sub_tokenizer.codes.shape[1]
    return (time.perf_counter() - start) / evaluations * digits / SAMPLES_TOGETHER
