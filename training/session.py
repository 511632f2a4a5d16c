"""A run from the command line: progress, evaluations, checkpoints, the bundle after each of them."""

import dataclasses
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from unmask_diffusion import SubTokenizer

from training.bundle import Content, Measured, averaged_network, write_model
from training.checkpoint import CHECKPOINT_FILE, load_checkpoint, save_checkpoint, saved_codes
from training.evaluation import Model, Order, free_samples, seconds_per_sample
from training.loop import Source, Trainer
from training.recipe import Budget, Recipe

SAMPLING_SHARE = 0.2  # the largest share of a budget in minutes that goes to the samples of the model card
INTERRUPTED = 130  # exit status after Ctrl-C


@dataclass(frozen=True)
class Options:
    """The command line's options beside the recipe."""

    out: Path  # folder of the run
    budget: Budget
    name: str | None = None  # of the model; by default it does not call itself like the one that ships
    resume: bool = False  # continue from the checkpoint in `out`
    device: str = "cpu"
    threads: int | None = None  # of the CPU; None for all cores
    samples: int = 0  # free samples at the end
    evaluate_minutes: float = 5.0  # between evaluations


class Judge(Protocol):
    """Measures a model, and judges what it draws."""

    @property
    def orders(self) -> Mapping[str, Order]:
        """The orders in which free samples are drawn."""

    def measure(self, model: Model) -> Measured:
        """Measure a model without drawing."""

    def judge(self, measured: Measured, drawn: Mapping[str, Tensor]) -> Measured:
        """Add what the canvases of each order, int64 [N, L], are worth."""


def train(
    recipe: Recipe, options: Options, content: Content, source: Source, used: torch.Tensor, judge: Judge, about: str
) -> Measured:
    """Train a recipe as the options say; return the finished model's figures.

    The checkpoint and the bundle are written at each evaluation, and before the final samples are drawn. Ctrl-C stops
    after the step in progress, evaluates, writes both and exits with status 130.
    """
    console = Console()
    torch.set_flush_denormal(True)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    resuming = options.resume and (options.out / CHECKPOINT_FILE).exists()
    if resuming:
        content = dataclasses.replace(content, codes=saved_codes(options.out))
    codes = _sub_tokenizer(recipe, content).codes
    trainer = Trainer(recipe, source, codes, used, options.device)
    if resuming:
        load_checkpoint(trainer, options.out)
        console.print(f"going on from step {trainer.history.step}")
    session = _Session(trainer, options, content, judge, about, console)
    budget, samples = session.reserve_samples()
    try:
        with session.bar(), _interrupts(session):
            trainer.run(budget, session.after_step)
    except KeyboardInterrupt:
        session.evaluate()
        console.print(f"stopped after step {trainer.history.step}; --resume goes on from there")
        session.print_command()
        raise SystemExit(INTERRUPTED) from None
    measured = session.evaluate()
    if samples:
        try:
            measured = session.judge_samples(measured, samples)
        except KeyboardInterrupt:
            console.print("the model is complete; its card has no samples")
    session.print_command()
    return measured


def _sub_tokenizer(recipe: Recipe, content: Content) -> SubTokenizer:
    sizes = (recipe.vocabulary_size, recipe.sub_tokens_per_token, recipe.base)
    return SubTokenizer.from_base(*sizes, content.codes)


@contextmanager
def _interrupts(session: "_Session") -> Iterator[None]:
    """Let Ctrl-C wait for the end of a step, whose optimizers must not stop halfway."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        session.interrupted = True

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Session:
    """Everything around the steps."""

    def __init__(
        self, trainer: Trainer, options: Options, content: Content, judge: Judge, about: str, console: Console
    ) -> None:
        self.trainer, self.options, self.content, self.judge, self.about = trainer, options, content, judge, about
        self.console = console
        self.progress = Progress(console=console)
        self.task = self.progress.add_task("")
        self.last_evaluation = time.monotonic()
        self.interrupted = False

    def reserve_samples(self) -> tuple[Budget, int]:
        """The training's share of the budget, and how many samples fit the rest of it."""
        budget, samples = self.options.budget, self.options.samples
        if budget.steps is not None or not samples:
            return budget, samples
        model = self.model()
        each = sum(seconds_per_sample(model, order) for order in self.judge.orders.values())
        samples = min(samples, max(1, int(SAMPLING_SHARE * 60 * budget.minutes / each)))
        minutes = budget.minutes - samples * each / 60
        self.console.print(f"training until minute {minutes:.1f}, then {samples} samples in each order")
        return Budget(max(minutes, budget.minutes * (1 - SAMPLING_SHARE))), samples

    @contextmanager
    def bar(self) -> Iterator[None]:
        columns = (TextColumn("{task.percentage:5.1f} %"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.description}"), console=self.console) as self.progress:
            self.task = self.progress.add_task("starting", total=1.0)
            yield

    def after_step(self, trainer: Trainer, progress: float) -> None:
        history = trainer.history
        if history.losses:
            speed = history.tokens / max(history.seconds, 1e-9)
            words = f"{history.tokens / 1e6:.2f} M tokens, {speed:,.0f}/s, loss {history.losses[-1][2]:.3f}"
            self.progress.update(self.task, completed=progress, description=words)
        if self.interrupted:
            raise KeyboardInterrupt
        if time.monotonic() - self.last_evaluation > 60 * self.options.evaluate_minutes:
            self.evaluate()
            self.last_evaluation = time.monotonic()

    def model(self) -> Model:
        """The averaged weights with the classes' digits."""
        return Model(averaged_network(self.trainer), _sub_tokenizer(self.trainer.recipe, self.content))

    def evaluate(self) -> Measured:
        """Measure the averaged weights, then write checkpoint and bundle."""
        history = self.trainer.history
        measured = self.judge.measure(self.model())
        figures = {"bound": measured.bound}
        if measured.copied is not None:
            figures["copied"] = measured.copied
        history.events.append((history.step, history.tokens, figures))
        save_checkpoint(self.trainer, self.options.out)
        self.write(measured)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        self.console.print(f"step {history.step}, {history.tokens / 1e6:.2f} M tokens: {shown}")
        return measured

    def judge_samples(self, measured: Measured, count: int) -> Measured:
        """Draw free samples in each order, judge them, and write the bundle again with them in its card."""
        drawn: dict[str, Tensor] = {}
        model = self.model()
        with self.bar():
            for done, (name, order) in enumerate(self.judge.orders.items()):
                canvases: list[Tensor] = []
                for some in free_samples(model, order, count, self.trainer.recipe.seed):
                    canvases.append(some)
                    drawn[name] = torch.cat(canvases)
                    share = (done + len(drawn[name]) / count) / len(self.judge.orders)
                    words = f"samples: {name}, {len(drawn[name])} of {count}"
                    self.progress.update(self.task, completed=share, description=words)
        measured = self.judge.judge(measured, drawn)
        self.write(measured)
        return measured

    def write(self, measured: Measured) -> None:
        name = self.options.name or f"my-{self.trainer.recipe.name}"
        write_model(self.trainer, name, self.content, measured, self.about, self.options.out / "bundle")

    def print_command(self) -> None:
        self.console.print(f"serve it: unmask serve --model {self.options.out / 'bundle'}", soft_wrap=True)
