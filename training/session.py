"""A run from the command line: progress bar, evaluations, checkpoints, the bundle after each of them."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from unmask_diffusion import SubTokenizer

from training.bundle import Measured, Text, averaged_network, write_model
from training.checkpoint import CHECKPOINT_FILE, load_checkpoint, save_checkpoint, saved_codes
from training.evaluation import Model
from training.loop import Source, Trainer
from training.recipe import Budget, Recipe


@dataclass(frozen=True)
class Options:
    """What the command line says beside the recipe.

    Attributes:
        out: folder of the run. budget: its length. resume: whether to go on from its checkpoint.
        device: to train on. threads: of the CPU, None for all cores.
        samples: free samples drawn at the end. evaluate_minutes: between evaluations.
    """

    out: Path
    budget: Budget
    resume: bool = False
    device: str = "cpu"
    threads: int | None = None
    samples: int = 0
    evaluate_minutes: float = 5.0


# measures a model; the second argument says how many free samples to draw
Measure = Callable[[Model, int], Measured]


def train(
    recipe: Recipe, options: Options, text: Text, source: Source, used: torch.Tensor, measure: Measure, about: str
) -> Measured:
    """Train a recipe as the options say; return what the finished model measures."""
    console = Console()
    torch.set_flush_denormal(True)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    resuming = options.resume and (options.out / CHECKPOINT_FILE).exists()
    if resuming:
        text = dataclasses.replace(text, codes=saved_codes(options.out))
    codes = SubTokenizer.from_base(recipe.vocabulary_size, 2, recipe.base, text.codes).codes
    trainer = Trainer(recipe, source, codes, used, options.device)
    if resuming:
        load_checkpoint(trainer, options.out)
        console.print(f"going on from step {trainer.history.step}")
    session = _Session(trainer, options, text, measure, about, console)
    with session.bar:
        trainer.run(options.budget, session.after_step)
    return session.evaluate(options.samples)


class _Session:
    """What happens around the steps."""

    def __init__(
        self, trainer: Trainer, options: Options, text: Text, measure: Measure, about: str, console: Console
    ) -> None:
        self.trainer, self.options, self.text, self.measure, self.about = trainer, options, text, measure, about
        self.console = console
        self.bar = Progress(
            TextColumn("{task.percentage:5.1f} %"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
        )
        self.task = self.bar.add_task("starting", total=1.0)
        self.last_evaluation = time.monotonic()

    def after_step(self, trainer: Trainer, progress: float) -> None:
        history = trainer.history
        if history.losses:
            speed = history.tokens / max(history.seconds, 1e-9)
            words = f"{history.tokens / 1e6:.2f} M tokens, {speed:,.0f}/s, loss {history.losses[-1][2]:.3f}"
            self.bar.update(self.task, completed=progress, description=words)
        if time.monotonic() - self.last_evaluation > 60 * self.options.evaluate_minutes:
            self.evaluate(0)
            self.last_evaluation = time.monotonic()

    def evaluate(self, samples: int) -> Measured:
        """Measure the averaged weights, then write checkpoint and bundle."""
        trainer, text = self.trainer, self.text
        sub_tokenizer = SubTokenizer.from_base(trainer.recipe.vocabulary_size, 2, trainer.recipe.base, text.codes)
        model = Model(averaged_network(trainer), sub_tokenizer, text.tokenizer, text.end_token_id)
        measured = self.measure(model, samples)
        history = trainer.history
        figures = {"bound": measured.bound}
        if measured.copied is not None:
            figures["copied"] = measured.copied
        history.events.append((history.step, history.tokens, figures))
        save_checkpoint(trainer, self.options.out)
        write_model(trainer, text, measured, self.about, self.options.out / "bundle")
        shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        self.console.print(f"step {history.step}, {history.tokens / 1e6:.2f} M tokens: {shown}")
        return measured
