"""Ancestral sampling as the papers' code does it, and their network: a baseline to measure against.

Written after the algorithm of "Beyond Masked and Unmasked…" (MDM-Prime) and its authors' code. Each of the T equal
steps from time t to s, idle or not,

1. evaluates the network and makes logits for all L positions: [B, L, C],
2. compares every class with every sub-token, [B, L, l, C], and takes the softmax over the classes that agree
   (carry-over),
3. draws one class at every position, with float64 Gumbel noise: argmax p / -log u,
4. unmasks each masked sub-token with the probability (alpha_s - alpha_t) / (1 - alpha_t) = (t - s) / t.

The official code does more than this baseline: its filter gathers from tables expanded to [B, L, C, b + 1], its step 4
is another categorical draw over b + 1 values for every sub-token, and it evaluates the network once more after the last
step. Its `ddpm_cache` predictor reuses the probabilities of steps 1 and 2 after a step that changed nothing in the
whole batch; steps 3 and 4 run all the same.

The network is written after `models/dit.py` of MDLM and MDM-Prime (float32, every row of every layer, torch's plain
operations) with the weights of ours, so that both give the same logits. The time embedding and the adaLN modulations,
which that code computes in every evaluation, are folded into the weights.
"""

from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from unmask_diffusion import PrimeDenoiser, SubTokenizer
from unmask_diffusion.networks import Block

from benchmarks.evaluation.clock import Clock, Parts

PAPERS_PARTS = ("network", "filter", "draw", "unmask")


class HasJointLogits(Protocol):
    """A network: ours, or the papers' own."""

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        """int64 [B, L, l] → float32 [B, L, C]."""


class PapersSampler:
    """The steps above, one method each; B samples of one length go in lockstep."""

    def __init__(self, denoiser: HasJointLogits, sub_tokenizer: SubTokenizer, seed: int) -> None:
        self.denoiser = denoiser
        self.sub_tokenizer = sub_tokenizer
        self.generator = torch.Generator().manual_seed(seed)

    @torch.inference_mode()
    def sample(self, count: int, length: int, steps: int) -> Tensor:
        """Draw `count` sequences from empty canvases: token ids, int64 [count, length]."""
        sub_tokens = self.sub_tokenizer.masked(length).repeat(count, 1, 1)
        for time, next_time in step_times(steps):
            probabilities = self.probabilities(self.logits(sub_tokens), sub_tokens)
            sub_tokens = self.unmask(sub_tokens, self.draw_everywhere(probabilities), time, next_time)
        return self.sub_tokenizer.decode(sub_tokens)

    def logits(self, sub_tokens: Tensor) -> Tensor:
        """Step 1: int64 [B, L, l] → float32 [B, L, C]."""
        return self.denoiser.joint_logits(sub_tokens)

    def probabilities(self, logits: Tensor, sub_tokens: Tensor) -> Tensor:
        """Step 2: the consistent joint distribution at every position, float32 [B, L, C]."""
        masked = sub_tokens == self.sub_tokenizer.mask_id
        agrees = (sub_tokens[..., None] == self.sub_tokenizer.codes.T) | masked[..., None]
        return logits.masked_fill(~agrees.all(2), -torch.inf).softmax(-1)

    def draw_everywhere(self, probabilities: Tensor) -> Tensor:
        """Step 3: a class at every position, [B, L, C] → int64 [B, L]."""
        uniform = torch.rand(probabilities.shape, dtype=torch.float64, generator=self.generator)
        noise = uniform.add_(torch.finfo(torch.float64).tiny).log_().neg_()
        return (probabilities / noise).argmax(-1)

    def unmask(self, sub_tokens: Tensor, classes: Tensor, time: float, next_time: float) -> Tensor:
        """Step 4: reveal some of the drawn digits, int64 [B, L, l]."""
        chance = (time - next_time) / time
        chosen = torch.rand(sub_tokens.shape, generator=self.generator) < chance
        chosen &= sub_tokens == self.sub_tokenizer.mask_id
        return torch.where(chosen, self.sub_tokenizer.encode(classes), sub_tokens)


def step_times(steps: int) -> list[tuple[float, float]]:
    """The (t, s) of every step, from t = 1 to s = 0."""
    return list(pairwise(1 - step / steps for step in range(steps + 1)))


@torch.inference_mode()
def timed_step(papers: PapersSampler, sub_tokens: Tensor, time: float, next_time: float) -> Parts:
    """One step on sub-tokens [B, L, l]: seconds of its parts, by the names of `PAPERS_PARTS`, and "total"."""
    clock = Clock()
    logits = clock.timed("network", papers.logits)(sub_tokens)
    probabilities = clock.timed("filter", papers.probabilities)(logits, sub_tokens)
    classes = clock.timed("draw", papers.draw_everywhere)(probabilities)
    clock.timed("unmask", papers.unmask)(sub_tokens, classes, time, next_time)
    return {**clock.seconds, "total": sum(clock.seconds.values())}


class PapersNetwork:
    """The papers' network with the weights of a float32 `PrimeDenoiser`."""

    def __init__(self, network: PrimeDenoiser) -> None:
        self.network = network
        half = network.shape.hidden_size // network.shape.heads // 2
        angles = torch.outer(torch.arange(network.shape.length), 10000.0 ** (-torch.arange(half) / half))
        self.rotary = angles.cos(), angles.sin()

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        """int64 [B, L, l] → float32 [B, L, C]."""
        network, length = self.network, sub_tokens.shape[1]
        x = network.embedding(sub_tokens).flatten(2)
        if network.position is not None:
            x = x + network.position(torch.arange(length))
        cosines, sines = (part[:length] for part in self.rotary)
        for block in (each for each in network.blocks if isinstance(each, Block)):
            x = _block(block, x, cosines, sines)
        logits: Tensor = network.output(network.norm_final(x))
        return logits


def _block(block: Block, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """X [B, L, hidden] → [B, L, hidden]."""
    qkv = block.attn_qkv(block.norm1(x)).unflatten(-1, (3, block.heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(_rotate(q, cosines, sines), _rotate(k, cosines, sines), v)
    x = x + block.attn_out(attended.transpose(1, 2).flatten(2))
    inner = F.gelu(block.mlp_in(block.norm2(x)), approximate="tanh")
    out: Tensor = x + block.mlp_out(inner)
    return out


def _rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Half-split rotary embedding: x [B, heads, L, d] with cosines and sines [L, d/2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
