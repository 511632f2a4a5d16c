"""Stop and go on: everything a run needs to continue as if it had never stopped."""

import dataclasses
import os
from pathlib import Path

import torch

from training.loop import History, Trainer

CHECKPOINT_FILE = "checkpoint.pt"


def save_checkpoint(trainer: Trainer, folder: Path) -> None:
    """Write the run's state beside the last one, then rename it into its place."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "recipe": dataclasses.asdict(trainer.recipe),
        "codes": trainer.codes,
        "network": trainer.network.state_dict(),
        "average": trainer.average.weights,
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "history": dataclasses.asdict(trainer.history),
    }
    beside = folder / f".{CHECKPOINT_FILE}.new"
    torch.save(state, beside)
    os.replace(beside, folder / CHECKPOINT_FILE)


def saved_codes(folder: Path) -> list[int]:
    """The codes that the saved run gave its tokens.

    A resumed run takes these and not its own: they come out of a singular value decomposition, whose last bits, and
    with them the order of near-equal words, depend on the number of threads.
    """
    state = torch.load(folder / CHECKPOINT_FILE, weights_only=True, map_location="cpu")
    digits, base = state["codes"], state["recipe"]["base"]
    powers = torch.tensor([base**j for j in reversed(range(digits.shape[1]))])
    codes: list[int] = (digits * powers).sum(-1).tolist()
    return codes


def load_checkpoint(trainer: Trainer, folder: Path) -> None:
    """Put a fresh trainer where the saved one stopped. Nothing in the file is executed.

    Raises:
        ValueError: the checkpoint was made by another network, or of another text.
        FileNotFoundError: there is none.
    """
    state = torch.load(folder / CHECKPOINT_FILE, weights_only=True, map_location=trainer.device)
    for key in ("length", "vocabulary_size", "base", "hidden_size", "blocks", "heads", "absolute_positions"):
        if state["recipe"][key] != getattr(trainer.recipe, key):
            raise ValueError(f"{folder}: the checkpoint's {key} is {state['recipe'][key]}, the recipe's another")
    if not torch.equal(state["codes"], trainer.codes):
        raise ValueError(f"{folder}: the words' codes are others than the checkpoint's: its text was another")
    trainer.network.load_state_dict(state["network"])
    trainer.average.weights = state["average"]
    for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
        rates = [(group["lr"], group["peak"]) for group in optimizer.param_groups]
        optimizer.load_state_dict(saved)
        for group, (rate, peak) in zip(optimizer.param_groups, rates, strict=True):
            group["lr"], group["peak"] = rate, peak
    trainer.history = History(**state["history"])
