"""Ship what was trained: the bundle with its model card."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from unmask_diffusion import GenerationSettings, PrimeDenoiser
from unmask_model_store import ImageConfig, PrimeConfig, ranges_of, write_bundle

from training.curve import draw_loss_curve
from training.loop import Trainer

CURVE_FILE = "loss.png"
SHEET_FILE = "samples.png"


@dataclass(frozen=True)
class Content:
    """What training and shipping need to know of what a recipe learns."""

    codes: list[int]  # the permutation of the codes
    tokenizer: Tokenizer | None = None  # None: pictures have none
    end_token_id: int | None = None  # the token that ends a text, if there is one
    description: str | None = None  # one sentence on what the model is
    examples: tuple[str, ...] = ()  # prompts to try
    generation: GenerationSettings | None = None  # recommended settings
    image: ImageConfig | None = None  # for pictures
    clock: int = 1  # the `sampler.clock` of requests that have none
    verdict: str = "consistent throughout"  # what a good sample is


@dataclass(frozen=True)
class Measured:
    """The figures and samples of the model card."""

    bound: float  # valid bound of held-out text, nats a token
    entropy: float | None = None  # the text's own, nats a token, where it is known
    copied: float | None = None  # share of hidden mentions of a name for which the name is the most probable class
    consistent: tuple[tuple[str, int, int], ...] = ()  # for each order, free samples that break no rule, and all
    copies: int = 0  # samples, of all orders, whose text is another sample's
    good: tuple[str, ...] = ()  # samples without a fault
    bad: tuple[tuple[str, str], ...] = ()  # samples with a fault, and the rule that they break
    sheet: bytes | None = None  # samples of a model of pictures, side by side: a PNG


def averaged_network(trainer: Trainer) -> PrimeDenoiser:
    """A copy of the network with the averaged weights, on the CPU."""
    network = PrimeDenoiser(trainer.network.shape)
    network.load_state_dict({name: weight.cpu() for name, weight in trainer.average.weights.items()})
    return network.eval()


def write_model(trainer: Trainer, name: str, content: Content, measured: Measured, about: str, folder: Path) -> None:
    """Write the bundle in one move: weights, tokenizer, model card, loss curve."""
    recipe, history = trainer.recipe, trainer.history
    config = PrimeConfig(
        architecture="prime",
        name=name,
        length=recipe.length,
        vocabulary_size=recipe.vocabulary_size,
        sub_tokens_per_token=recipe.sub_tokens_per_token,
        base=recipe.base,
        hidden_size=recipe.hidden_size,
        blocks=recipe.blocks,
        heads=recipe.heads,
        absolute_positions=recipe.absolute_positions,
        codes=content.codes,
        carry_over=True,
        canvas="as_requested" if content.image is None else "full",  # half a picture is none
        end_token_id=content.end_token_id,
        description=content.description,
        examples=list(content.examples),
        generation=content.generation,
        clock=content.clock,
        image=content.image,
        trained_tokens=ranges_of(trainer.used.tolist()),
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
    card = model_card(trainer, name, content, measured, about)
    write_bundle(folder, config, network.state_dict(), content.tokenizer, card, replace=True)
    draw_loss_curve(history, folder / CURVE_FILE, measured.entropy)
    if measured.sheet is not None:
        (folder / SHEET_FILE).write_bytes(measured.sheet)


def model_card(trainer: Trainer, name: str, content: Content, measured: Measured, about: str) -> str:
    """The bundle's README.md."""
    recipe, history = trainer.recipe, trainer.history
    table = "\n".join(f"| {key} | {value} |" for key, value in _figures(trainer, measured).items())
    return f"""# {name}

{about}
## Figures

| | |
| --- | --- |
{table}

{_orders(content, measured)}{_samples(measured)}## Training

`python -m training {recipe.name}`: {history.seconds / 3600:.1f} hours, {history.tokens / 1e6:.1f} M tokens, objective
`{recipe.objective}`, Muon for the blocks' matrices, AdamW for the rest, {_precision(trainer)} products, averaged
weights (decay {recipe.ema_decay}). Every number is in `config.json`, under `provenance`.

![loss curve]({CURVE_FILE})
"""


def _precision(trainer: Trainer) -> str:
    return str(trainer.recipe.product_dtype(trainer.device)).removeprefix("torch.")


def _figures(trainer: Trainer, measured: Measured) -> dict[str, str]:
    recipe, history = trainer.recipe, trainer.history
    millions = sum(p.numel() for p in trainer.network.parameters()) / 1e6
    sizes = f"{recipe.hidden_size} wide, {recipe.blocks} blocks, {recipe.heads} heads"
    figures = {
        "parameters": f"{millions:.2f} M: {sizes}",
        "classes": f"{recipe.vocabulary_size}, each {recipe.sub_tokens_per_token} digits in base {recipe.base}",
        "canvas": f"{recipe.shortest} to {recipe.length} tokens, most often {recipe.usual_length}",
        "tokens seen": f"{history.tokens / 1e6:.1f} M, in {history.step} steps, {history.seconds / 60:.0f} minutes",
        "held-out bound": f"{measured.bound:.4f} nats a token: the sum of marginals, valid for the exact first-hitting "
        "sampler",
    }
    if measured.entropy is not None:
        figures["the text's own entropy"] = f"{measured.entropy:.4f} nats a token: the bound of a perfect model"
    if measured.copied is not None:
        figures["names copied"] = f"{measured.copied:.0%}: one of several mentions hidden, everything else visible"
    return figures


def _orders(content: Content, measured: Measured) -> str:
    if not measured.consistent:
        return ""
    rows = "\n".join(
        f"| {order} | {good / drawn:.0%} ({good} of {drawn}) |" for order, good, drawn in measured.consistent
    )
    drawn = sum(drawn for *_, drawn in measured.consistent)
    return f"""Free samples on the longest canvas; one digit an evaluation, which is exact along its order, unless the
row says otherwise. {measured.copies} of all {drawn} samples are copies of another one.

| order | {content.verdict} |
| --- | --- |
{rows}

"""


def _samples(measured: Measured) -> str:
    parts = []
    if measured.sheet is not None:
        parts.append(f"![samples]({SHEET_FILE})\n\n")
    if measured.good:
        title = "Samples that hold" if measured.consistent else "Samples"
        parts.append(f"## {title}\n\n" + "".join(f"> {text}\n\n" for text in measured.good))
    if measured.bad:
        parts.append("## Samples that do not\n\n" + "".join(f"> {text}\n\n{why}\n\n" for text, why in measured.bad))
    return "".join(parts)
