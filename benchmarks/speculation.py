"""Exact speculation: what lanes cost, what they buy, and that they change nothing (docs/speculation.md has the idea).

Four things, without a server:

  rounds and evaluations of exact samples against lanes a round, at temperature 1, from nothing; and how often a guess
  is right by the number of reveals for which it waits. For the model, and for one Markov chain's exact posterior with
  l = 1 and l = 2: these two differ in l alone, and don't depend on what a network has learnt.
  seconds of a sample alone, by lanes, in turns; beside them what the measured time of an evaluation with so many lanes
  would allow if guessing were free.
  logs of random requests (samplers, temperatures, filters, lengths, given tokens) with speculation, alone and in
  company, against those without: none may differ.

    python -m benchmarks.speculation [--samples 8] [--turns 9] [--requests 1000] [--json FILE] [--png FILE]
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from unmask_diffusion import Model

from benchmarks.figures import Figure, table_of
from benchmarks.machine import machine
from benchmarks.options import add_model_options, described, open_model, parser_of, run_benchmark
from benchmarks.speculation_identity import PLACES, Identity, compare
from benchmarks.speculation_latency import Latency, measure_latency
from benchmarks.speculation_plot import plot
from benchmarks.speculation_rounds import (
    Acceptance,
    Rounds,
    count_right,
    count_rounds,
    exact_plan,
    markov_models,
)

# claimed of the model that ships
SAVED = {100: 1.5, 24: 2.5}
SHARE_OF_ALLOWED = 0.8
EVALUATIONS_AT = (8, 1.3)


def count(name: str, model: Model, arguments: argparse.Namespace) -> tuple[list[Rounds], list[Acceptance]]:
    """What guesses are worth: for the model and for the Markov chain, on canvases of the same length."""
    tokens = arguments.tokens[0]
    rounds: list[Rounds] = []
    acceptance: list[Acceptance] = []
    for each, of in ((name, model), *markov_models(tokens)):
        plan = exact_plan(of, tokens, arguments.samples, seed=1)
        rounds += count_rounds(each, of, plan, arguments.lanes)
        acceptance += count_right(each, of, plan, arguments.distances)
    return rounds, acceptance


def figures_of(rounds: Sequence[Rounds], latencies: Sequence[Latency], identity: Identity) -> list[Figure]:
    """What is claimed, and what was measured of it; `rounds` are the model's own."""
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
    """What is printed before the figures."""
    names = dict.fromkeys(each.model for each in rounds)
    first = Table("lanes a round", *names, title="rounds / evaluations a sample")
    for lanes in sorted({each.lanes for each in rounds}):
        first.add_row(str(lanes), *(f"{e.rounds:.1f} / {e.evaluations:.1f}" for e in rounds if e.lanes == lanes))
    second = Table("reveals before the draw", *names, title="right guesses")
    for distance in sorted({each.distance for each in acceptance}):
        second.add_row(str(distance), *(f"{each.share:.1%}" for each in acceptance if each.distance == distance))
    third = Table("tokens", "lanes", "rounds", "ms/evaluation", "seconds", "saved", "allowed", "share")
    for each in latencies:
        ratios = f"{each.saved:.2f}", f"{each.allowed:.2f}", f"{each.saved / each.allowed:.0%}"
        timed = f"{each.rounds:g}", f"{each.evaluation_ms:.2f}", f"{each.seconds:.3f}"
        third.add_row(str(each.tokens), str(each.lanes), *timed, *ratios)
    return [first, second, third]


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = parser_of(__doc__)
    add_model_options(parser)
    parser.add_argument("--tokens", type=int, nargs="+", default=[100, 24], help="timed; the first is counted too")
    parser.add_argument("--samples", type=int, default=8, help="counted, of each model (default: 8)")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="a round, counted")
    parser.add_argument("--distances", type=int, nargs="+", default=[1, 4, 8, 16, 32], help="of guesses, in reveals")
    parser.add_argument("--timed-lanes", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="a round, timed")
    parser.add_argument("--turns", type=int, default=9, help="samples timed of each length and lanes (default: 9)")
    parser.add_argument("--requests", type=int, default=1000, help="compared with speculation off (default: 1000)")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the plot here")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    run_benchmark(options(), measured, given)


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure, print and plot; what is to be written."""
    model = open_model(arguments)
    name = f"{model.name}, l = {model.sub_tokenizer.sub_tokens_per_token}"
    rounds, acceptance = count(name, model, arguments)
    latencies = [
        each
        for tokens in arguments.tokens
        for each in measure_latency(model, tokens, arguments.timed_lanes, arguments.turns)
    ]
    identity = compare(model, arguments.requests, seed=1)
    figures = figures_of([each for each in rounds if each.model == name], latencies, identity)
    about = f"{described(model)}; {machine()}"
    for table in tables(rounds, acceptance, latencies):
        Console().print(table)
    print(
        f"logs that differ, of {identity.logs} ({identity.requests} requests, {identity.reveals} reveals): "
        f"{identity.alone} alone, {identity.company} with up to {PLACES} in a round"
    )
    Console().print(table_of(figures, about))
    if arguments.png:
        plot(rounds, acceptance, f"{arguments.samples} exact samples of {arguments.tokens[0]} tokens", arguments.png)
    return {
        "model": described(model),
        "machine": machine(),
        "samples": arguments.samples,
        "tokens": arguments.tokens[0],
        "rounds": [asdict(each) for each in rounds],
        "acceptance": [asdict(each) for each in acceptance],
        "turns": arguments.turns,
        "latency": [asdict(each) for each in latencies],
        "identity": asdict(identity),
        "figures": [each.as_json() for each in figures],
    }


if __name__ == "__main__":
    main()
