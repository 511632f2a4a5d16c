"""Clocks patched around the parts of a model, and comparisons in turns."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import ParamSpec, TypeVar
from unittest.mock import patch

from rich.progress import track
from unmask_diffusion import ActiveSample, Model, evaluate
from unmask_diffusion.networks import prime, transformer

# where the network calls them
PRODUCTS = ((prime, "fixed_tile_linear"), (prime, "linear_gelu_tanh"), (transformer, "fixed_tile_linear"))
TRUNK_PARTS = {"products": PRODUCTS, "attention": ((transformer, "attention"),)}

Parts = dict[str, float]
P = ParamSpec("P")
R = TypeVar("R")


class Clock:
    """Adds up seconds by name."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timed(self, name: str, function: Callable[P, R]) -> Callable[P, R]:
        """The function with its time added to `seconds[name]`."""

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            begun = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - begun

        return call


@contextmanager
def clocks_around(model: Model) -> Iterator[Clock]:
    """Time a model in this context: "trunk", "head and draw" and, inside the trunk, "products" and "attention".

    The products include the GELU that is fused into one of them.
    """
    clock = Clock()
    timed: list[tuple[object, str, str]] = [
        (model.denoiser, "trunk", "trunk"),
        (model.denoiser, "draw", "head and draw"),
    ]
    timed += [(module, name, part) for part, calls in TRUNK_PARTS.items() for module, name in calls]
    with ExitStack() as stack:
        for owner, name, part in timed:
            stack.enter_context(patch.object(owner, name, clock.timed(part, getattr(owner, name))))
        yield clock


def timed_evaluation(model: Model, samples: Sequence[ActiveSample]) -> Parts:
    """Seconds of one network evaluation of samples, and of its parts.

    "total" = "trunk" + "head and draw" + "rest"; "trunk" = "products" + "attention" + "elementwise".
    """
    with clocks_around(model) as clock:
        clock.timed("total", evaluate)(model, samples)
    seconds = clock.seconds
    rest = seconds["total"] - seconds["trunk"] - seconds["head and draw"]
    return {**seconds, "rest": rest, "elementwise": seconds["trunk"] - seconds["products"] - seconds["attention"]}


def in_turns(ways: Mapping[str, Callable[[int], Parts]], rounds: Mapping[str, int], about: str) -> dict[str, Parts]:
    """Time several ways in turns, so that load on the machine disturbs all of them.

    Each way gets the number of its turn and returns seconds by name; a way with fewer rounds pauses in some turns.
    Returns the medians of each way's parts, without a first turn that warms up.
    """
    most = max(rounds.values())
    measured: dict[str, list[Parts]] = {name: [] for name in ways}
    for turn in track(range(-1, most), description=about):
        for name, way in ways.items():
            if turn < 0:
                way(0)
            elif turn * rounds[name] % most < rounds[name]:
                measured[name].append(way(turn))
    return {name: {part: median(each[part] for each in turns) for part in turns[0]} for name, turns in measured.items()}
