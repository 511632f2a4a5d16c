"""Exact speculation without a server: what lanes cost and save, and that they change no token (docs/speculation.md).

1. Rounds and evaluations of exact samples against lanes a round, at temperature 1, without a prompt; and the share of
   right drafts by the number of reveals between draft and draw. For the model, and for the exact posterior of one
   Markov chain with l = 1 and l = 2, which differ in l alone and do not depend on a trained network.
2. Seconds of a sample alone by lanes, in turns; beside them what the measured time of an evaluation with that many
   lanes would allow if drafting were free.
3. Logs of random requests (samplers, temperatures, filters, lengths, given tokens) with speculation, alone and with
   other samples, against the logs without: none may differ.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from unmask_diffusion import Model

from benchmarks.harness import Figure, Numbers, Table
from benchmarks.models import add_model_options, described, open_model
from benchmarks.speculation.identity import PLACES, Identity, compare
from benchmarks.speculation.measures import (
    Acceptance,
    Latency,
    Rounds,
    count_right,
    count_rounds,
    exact_plan,
    markov_models,
    measure_latency,
)

# claimed of the model that ships
SAVED = {100: 1.5, 24: 2.5}
SHARE_OF_ALLOWED = 0.8
EVALUATIONS_AT = (8, 1.3)
STYLES = (("o-", "black"), ("s--", "tab:orange"), ("^--", "tab:blue"), ("v--", "tab:green"))


def count(name: str, model: Model, arguments: argparse.Namespace) -> tuple[list[Rounds], list[Acceptance]]:
    """Rounds and right drafts of the model and of the Markov chain, on canvases of the same length."""
    tokens = arguments.tokens[0]
    rounds: list[Rounds] = []
    acceptance: list[Acceptance] = []
    for each, of in ((name, model), *markov_models(tokens)):
        plan = exact_plan(of, tokens, arguments.samples, seed=1)
        rounds += count_rounds(each, of, plan, arguments.lanes)
        acceptance += count_right(each, of, plan, arguments.distances)
    return rounds, acceptance


def figures_of(rounds: Sequence[Rounds], latencies: Sequence[Latency], identity: Identity) -> list[Figure]:
    figures = []
    for tokens in dict.fromkeys(each.tokens for each in latencies):
        of_length = [each for each in latencies if each.tokens == tokens]
        best, allowed = max(each.saved for each in of_length), max(each.allowed for each in of_length)
        about = f"{tokens} tokens alone, seconds without speculation, times the best lanes'"
        if tokens in SAVED:
            figures.append(Figure(about, best, "at least", SAVED[tokens]))
        figures.append(Figure(f"{about}, of what is allowed", best / allowed, "at least", SHARE_OF_ALLOWED))
    lanes, most = EVALUATIONS_AT
    for each in rounds:
        if each.lanes == lanes:
            about = f"evaluations spent at {lanes} lanes, of those planned"
            figures.append(Figure(about, each.evaluations / each.planned, "at most", most))
    return [*figures, Figure("logs that speculation changed", identity.alone + identity.company, "at most", 0)]


def tables(rounds: Sequence[Rounds], acceptance: Sequence[Acceptance], latencies: Sequence[Latency]) -> list[Table]:
    names = list(dict.fromkeys(each.model for each in rounds))
    counted = [
        [str(lanes), *(f"{each.rounds:.1f} / {each.evaluations:.1f}" for each in rounds if each.lanes == lanes)]
        for lanes in sorted({each.lanes for each in rounds})
    ]
    right = [
        [str(distance), *(f"{each.share:.1%}" for each in acceptance if each.distance == distance)]
        for distance in sorted({each.distance for each in acceptance})
    ]
    timed = []
    for each in latencies:
        ratios = [f"{each.saved:.2f}", f"{each.allowed:.2f}", f"{each.saved / each.allowed:.0%}"]
        costs = [f"{each.rounds:g}", f"{each.evaluation_ms:.2f}", f"{each.seconds:.3f}"]
        timed.append([str(each.tokens), str(each.lanes), *costs, *ratios])
    columns = ["tokens", "lanes", "rounds", "ms/evaluation", "seconds", "saved", "allowed", "share"]
    return [
        Table("Rounds / evaluations of a sample", ["lanes a round", *names], counted),
        Table("Right drafts", ["reveals before the draw", *names], right),
        Table("One sample alone", columns, timed),
    ]


def plot(rounds: Sequence[Rounds], acceptance: Sequence[Acceptance], about: str, file: Path) -> None:
    """Draw three panels: rounds and evaluations against lanes, right drafts against their distance."""
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(11, 4), layout="constrained")
    for name, (marker, colour) in zip(dict.fromkeys(each.model for each in rounds), STYLES, strict=False):
        style: dict[str, Any] = {"color": colour, "markersize": 4}
        counted = [each for each in rounds if each.model == name]
        lanes = [each.lanes for each in counted]
        left.plot(lanes, [each.rounds / each.planned for each in counted], marker, label=name, **style)
        middle.plot(lanes, [each.evaluations / each.planned for each in counted], marker, **style)
        accepted = [each for each in acceptance if each.model == name]
        right.plot([each.distance for each in accepted], [each.share for each in accepted], marker, **style)
    lanes = sorted({each.lanes for each in rounds})
    left.plot(lanes, [1 / each for each in lanes], color="grey", linewidth=1, label="every draft right")
    left.set(xscale="log", yscale="log", xlabel="lanes a round", ylabel="rounds, of the evaluations planned")
    middle.set(xscale="log", xlabel="lanes a round", ylabel="evaluations, of those planned", ylim=(0, None))
    right.set(xscale="log", xlabel="reveals between draft and draw", ylabel="share of drafts that are right")
    right.set_ylim(0, 1.02)
    for axes, ticks in ((left, lanes), (middle, lanes), (right, sorted({each.distance for each in acceptance}))):
        axes.set_xticks(ticks, map(str, ticks))
        axes.set_xticks([], minor=True)
    left.legend(fontsize=8)
    figure.suptitle(about, fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--tokens", type=int, nargs="+", default=[100, 24], help="timed; the first is counted too")
    parser.add_argument("--samples", type=int, default=8, help="counted, of each model (default: 8)")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="a round, counted")
    parser.add_argument("--distances", type=int, nargs="+", default=[1, 4, 8, 16, 32], help="of drafts, in reveals")
    parser.add_argument("--timed-lanes", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="a round, timed")
    parser.add_argument("--turns", type=int, default=9, help="samples timed of each length and lanes (default: 9)")
    parser.add_argument("--requests", type=int, default=1000, help="compared with speculation off (default: 1000)")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the plot here")


def measured(arguments: argparse.Namespace) -> Numbers:
    model = open_model(arguments)
    name = f"{model.name}, l = {model.sub_tokenizer.sub_tokens_per_token}"
    rounds, acceptance = count(name, model, arguments)
    latencies = [
        each
        for tokens in arguments.tokens
        for each in measure_latency(model, tokens, arguments.timed_lanes, arguments.turns)
    ]
    identity = compare(model, arguments.requests, seed=1)
    for table in tables(rounds, acceptance, latencies):
        print(table)
    print(
        f"logs that differ, of {identity.logs} ({identity.requests} requests, {identity.reveals} reveals): "
        f"{identity.alone} alone, {identity.company} with up to {PLACES} in a round\n"
    )
    if arguments.png:
        plot(rounds, acceptance, f"{arguments.samples} exact samples of {arguments.tokens[0]} tokens", arguments.png)
    return {
        "model": described(model),
        "samples": arguments.samples,
        "tokens": arguments.tokens[0],
        "rounds": rounds,
        "acceptance": acceptance,
        "turns": arguments.turns,
        "latency": latencies,
        "identity": identity,
        "figures": figures_of([each for each in rounds if each.model == name], latencies, identity),
    }
