"""The distribution that comes out of HTTP, from batches shared with other requests, is the model's own.

A correct server with other seeds would fail one of these in 100,000 (`FALSE_ALARM_RATE`); the seeds are fixed.
"""

import itertools
import random
from collections import Counter
from collections.abc import Sequence

import torch

from tests.conftest import CHAIN_SEED, possible_table
from tests.helpers import FALSE_ALARM_RATE, chi_square_p, random_chain, transition_p
from tests.helpers_server import Body, Server, generate_together, token_ids


def mixed(counted: Sequence[Body], others: Sequence[Body]) -> tuple[list[Body], list[int]]:
    """The counted requests among others, and where they are."""
    bodies = [*counted, *others]
    order = random.Random(1).sample(range(len(bodies)), len(bodies))
    return [bodies[i] for i in order], [place for place, i in enumerate(order) if i < len(counted)]


def test_table_through_http(table: Server) -> None:
    """Chi-square over all sequences, 6,400 samples."""
    counted: list[Body] = [{"n": 64, "seed": 1000 + i} for i in range(100)]
    kinds: list[Body] = [
        {"temperature": 0, "n": 3},
        {"sampler": {"steps": 1}, "n": 5},
        {"sampler": {"name": "ancestral", "steps": 3}, "n": 2},
        {"canvas": [None, 1], "temperature": 0.4},
        {"prompt": [2], "top_k": 1, "n": 7},
    ]
    others = [kind | {"seed": seed} for seed in range(4) for kind in kinds]
    bodies, places = mixed(counted, others)
    answers = generate_together(table.url, bodies, at_once=24)
    counts = Counter(tuple(ids) for place in places for ids in token_ids(answers[place]))
    probabilities = possible_table().exp()
    expected: dict[tuple[int, ...], float] = {
        pair: float(probabilities[pair]) for pair in itertools.product(range(4), repeat=2)
    }
    assert chi_square_p(counts, expected) > FALSE_ALARM_RATE


def test_given_tokens_through_http(table: Server) -> None:
    """Chi-square of the first token given the second, 2,560 samples."""
    answers = generate_together(table.url, [{"canvas": [None, 2], "n": 64, "seed": seed} for seed in range(40)])
    counts = Counter(tuple(ids) for answer in answers for ids in token_ids(answer))
    column = possible_table().exp()[:, 2]
    assert chi_square_p(counts, {(c, 2): float(p) for c, p in enumerate(column / column.sum())}) > FALSE_ALARM_RATE


def test_markov_through_http(chain: Server) -> None:
    """Transition counts of 192 chains of 64 tokens, in company."""
    counted: list[Body] = [{"n": 32, "seed": 77 + i} for i in range(6)]
    others: list[Body] = [
        {"prompt": [i % 4] * (i + 1), "seed": i, "sampler": {"steps": 1 + i}, "temperature": i / 10} for i in range(20)
    ]
    bodies, places = mixed(counted, others)
    answers = generate_together(chain.url, bodies)
    chains = [ids for place in places for ids in token_ids(answers[place])]
    assert {len(ids) for ids in chains} == {64}
    initial, transition = random_chain(4, CHAIN_SEED)
    assert transition_p(chains, transition.float().exp().double()) > FALSE_ALARM_RATE
    first: Counter[tuple[int, ...]] = Counter((ids[0],) for ids in chains)
    assert chi_square_p(first, {(c,): float(p) for c, p in enumerate(initial.exp())}) > FALSE_ALARM_RATE
    assert torch.allclose(transition.exp().sum(1), torch.ones(4, dtype=torch.float64))
