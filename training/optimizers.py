"""Muon for the blocks' matrices, AdamW for everything else; the start of the parameters; their moving average."""

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from unmask_diffusion.networks import Block, PrimeDenoiser

from training.recipe import Recipe


def initialise(network: PrimeDenoiser, codes: Tensor, recipe: Recipe) -> None:
    """Start as a network that already copies: "what is in the text is likely here too".

    - The head's row of a class is the concatenation of its digits' embeddings, so a residual stream that holds a
      token's embedding predicts that token.
    - The values of attention are a random rotation and its output turns them back: at the start every block adds
      `copy_strength` times the mean of what it attends to. Training then only has to learn *where* to look.
    - The output of each MLP is zero.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.no_grad():
        network.embedding.weight.normal_(0, 1, generator=generator)
        if network.position is not None:
            network.position.weight.normal_(0, 0.1, generator=generator)
        for block in network.blocks:
            if isinstance(block, Block):
                _initialise_block(block, recipe.copy_strength / recipe.blocks**0.5, generator)
        rows = network.embedding.weight[codes].flatten(1)
        network.output.weight.copy_(rows * recipe.hidden_size**-0.5 * 0.5)
        network.output.bias.zero_()


def _initialise_block(block: Block, copy_strength: float, generator: torch.Generator) -> None:
    hidden = block.attn_out.out_features
    for layer in (block.attn_qkv, block.mlp_in):
        layer.weight.normal_(0, hidden**-0.5, generator=generator)
    rotation = torch.linalg.qr(torch.randn(hidden, hidden, generator=generator)).Q
    block.attn_qkv.weight[2 * hidden :] = rotation
    block.attn_out.weight.copy_(copy_strength * rotation.T)
    block.mlp_in.bias.zero_()
    block.mlp_out.weight.zero_()
    block.mlp_out.bias.zero_()


def make_optimizers(network: nn.Module, recipe: Recipe) -> list[Optimizer]:
    """Both optimizers; every group remembers its full learning rate as `peak`."""
    matrices = [p for name, p in network.named_parameters() if name.startswith("blocks.") and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in network.parameters() if id(p) not in chosen]
    muon = Muon(matrices, lr=recipe.muon_rate, weight_decay=recipe.weight_decay, momentum=0.95)
    adam = AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.98), weight_decay=0.0)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return [muon, adam]


def set_rates(optimizers: list[Optimizer], factor: float) -> None:
    """Multiply every group's full learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


class MovingAverage:
    """Exponential moving average of parameters, with a shorter memory in the first steps."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in network.named_parameters()}

    def update(self, network: nn.Module, step: int) -> None:
        """Take in the parameters after a step (the first is 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [p.detach() for _, p in network.named_parameters()]
        torch._foreach_lerp_(list(self.weights.values()), current, 1 - decay)
