"""Ship what was trained: the bundle with its model card."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from unmask_diffusion import PrimeDenoiser
from unmask_model_store.bundle import write_bundle
from unmask_model_store.config import PrimeConfig

from training.curve import draw_loss_curve
from training.loop import Trainer

CURVE_FILE = "loss.png"


@dataclass(frozen=True)
class Text:
    """What a recipe's text is made of, as training and shipping need it.

    Attributes:
        tokenizer: text ↔ ids. end_token_id: the token that ends a text, if there is one.
        codes: the permutation of the codes.
    """

    tokenizer: Tokenizer
    end_token_id: int | None
    codes: list[int]


@dataclass(frozen=True)
class Measured:
    """What the model card says about the model.

    Attributes:
        bound: held-out valid bound, nats a token. entropy: the text's own, where it is known.
        copied: how often a hidden mention of a name is the most probable class.
        consistent: how many of `samples` free samples break no rule.
        good, bad: samples that hold, and samples that do not with what they break.
    """

    bound: float
    entropy: float | None = None
    copied: float | None = None
    consistent: int = 0
    samples: int = 0
    good: tuple[str, ...] = ()
    bad: tuple[tuple[str, str], ...] = ()


def averaged_network(trainer: Trainer) -> PrimeDenoiser:
    """A copy of the network with the averaged weights, on the CPU."""
    network = PrimeDenoiser(trainer.network.shape)
    network.load_state_dict({name: weight.cpu() for name, weight in trainer.average.weights.items()})
    return network.eval()


def write_model(trainer: Trainer, name: str, text: Text, measured: Measured, about: str, folder: Path) -> None:
    """Write the bundle in one move: weights, tokenizer, model card, loss curve."""
    recipe, history = trainer.recipe, trainer.history
    config = PrimeConfig(
        architecture="prime",
        name=name,
        length=recipe.length,
        vocabulary_size=recipe.vocabulary_size,
        sub_tokens_per_token=2,
        base=recipe.base,
        hidden_size=recipe.hidden_size,
        blocks=recipe.blocks,
        heads=recipe.heads,
        absolute_positions=recipe.absolute_positions,
        codes=text.codes,
        carry_over=True,
        canvas="as_requested",
        end_token_id=text.end_token_id,
        provenance={
            "command": f"python -m training {recipe.name}",
            "recipe": dataclasses.asdict(recipe),
            "torch": torch.__version__,
            "steps": history.step,
            "tokens_seen": history.tokens,
            "training_seconds": round(history.seconds),
            "held_out_bound_nats_per_token": round(measured.bound, 4),
        },
    )
    network = averaged_network(trainer)
    card = model_card(trainer, name, measured, about)
    write_bundle(folder, config, network.state_dict(), text.tokenizer, card, replace=True)
    draw_loss_curve(history, folder / CURVE_FILE, measured.entropy)


def model_card(trainer: Trainer, name: str, measured: Measured, about: str) -> str:
    """The bundle's README.md."""
    recipe = trainer.recipe
    table = "\n".join(f"| {key} | {value} |" for key, value in _figures(trainer, measured).items())
    return f"""# {name}

{about}
## Figures

| | |
| --- | --- |
{table}

{_samples(measured)}## Training

`python -m training {recipe.name}`: objective `{recipe.objective}`, Muon for the blocks' matrices, AdamW for the rest,
{recipe.precision} products, averaged weights (decay {recipe.ema_decay}). Every number is in `config.json`, under
`provenance`.

![loss curve]({CURVE_FILE})
"""


def _figures(trainer: Trainer, measured: Measured) -> dict[str, str]:
    recipe, history = trainer.recipe, trainer.history
    millions = sum(p.numel() for p in trainer.network.parameters()) / 1e6
    sizes = f"{recipe.hidden_size} wide, {recipe.blocks} blocks, {recipe.heads} heads"
    figures = {
        "parameters": f"{millions:.2f} M: {sizes}",
        "classes": f"{recipe.vocabulary_size}, each two digits in base {recipe.base}",
        "canvas": f"{recipe.shortest} to {recipe.length} tokens",
        "tokens seen": f"{history.tokens / 1e6:.1f} M, in {history.step} steps, {history.seconds / 60:.0f} minutes",
        "held-out bound": f"{measured.bound:.3f} nats a token: the sum of marginals, valid for the exact first-hitting "
        "sampler",
    }
    if measured.entropy is not None:
        figures["the text's own entropy"] = (
            f"{measured.entropy:.3f} nats a token at most: what a perfect model would reach"
        )
    if measured.copied is not None:
        figures["names copied"] = f"{measured.copied:.0%}: one of several mentions hidden, everything else visible"
    if measured.samples:
        share = f"{measured.consistent / measured.samples:.0%} ({measured.consistent} of {measured.samples})"
        how = f"free samples, temperature 1, exact sampler, canvas {recipe.length}"
        figures["consistent throughout"] = f"{share}: {how}"
    return figures


def _samples(measured: Measured) -> str:
    parts = []
    if measured.good:
        title = "Samples that hold" if measured.samples else "Samples"
        parts.append(f"## {title}\n\n" + "".join(f"> {text}\n\n" for text in measured.good))
    if measured.bad:
        parts.append("## Samples that do not\n\n" + "".join(f"> {text}\n\n{why}\n\n" for text, why in measured.bad))
    return "".join(parts)
