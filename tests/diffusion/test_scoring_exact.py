"""Where the truth is known, every chain of marginals is it: exact models by enumeration, and the official code's."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from unmask_diffusion import ActivePass, MarkovDenoiser, SubTokenizer, TableDenoiser, score
from unmask_kernels import consistent_log_softmax
from unmask_model_store import open_bundle
from unmask_model_store.importers import Request, import_checkpoint

from tests.helpers import ToyModel, code_table, markov_model, prime_model, table_model
from tests.helpers_scoring import along, joint_table, log_probability, nats_of, readouts, score_plan, whole_passes

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-5
# C, L, l, b: plain tokens; codes that name no token, of two and of three digits; a base larger than needed; one token
SHAPES = [(3, 3, 1, 3), (5, 3, 2, 3), (5, 2, 3, 2), (7, 2, 3, 2), (4, 3, 2, 5), (6, 1, 3, 2)]
EXACT = {"table": table_model, "markov": markov_model}


def tokens_for(classes: int, length: int) -> list[int]:
    return [(3 * i + 2) % classes for i in range(length)]


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize(("classes", "length", "digits", "base"), SHAPES)
def test_every_chain_is_the_log_likelihood(kind: str, classes: int, length: int, digits: int, base: int) -> None:
    model, tokens = EXACT[kind](classes, length, digits, base), tokens_for(classes, length)
    truth = -log_probability(joint_table(model), tokens, [], range(length))
    plan = score_plan(model, input=tokens, seed=1, budget=60 * length * digits)
    assert len({plan.pass_of(i).order for i in range(plan.passes)}) >= min(20, math.factorial(length * digits))
    assert [nats_of(each) for each in whole_passes(model, plan)] == pytest.approx([truth] * plan.passes, abs=TOLERANCE)
    found = score(model, input=tokens, seed=1)
    assert found.bound.nats == pytest.approx(truth, abs=TOLERANCE)
    assert found.bound.standard_error < TOLERANCE


@pytest.mark.parametrize("kind", EXACT)
def test_every_order_there_is(kind: str) -> None:
    model, tokens = EXACT[kind](5, 2, 2), [4, 1]
    truth = -log_probability(joint_table(model), tokens, [], range(2))
    plan = score_plan(model, input=tokens)
    for order in itertools.permutations(range(4)):
        (found,) = readouts(model, [ActivePass(model, along(plan, order), 0)], 4)
        assert abs(nats_of(found) - truth) < TOLERANCE, order


def test_a_long_chain() -> None:
    """40 tokens of two digits: no table could hold them, but a chain's likelihood is a product of transitions."""
    model, tokens = markov_model(6, 40, 2, 3), tokens_for(6, 40)
    chain = model.denoiser
    assert isinstance(chain, MarkovDenoiser)
    truth = -float(chain.initial[tokens[0]].log() + chain.transition[tokens[:-1], tokens[1:]].log().sum())
    found = score(model, input=tokens, seed=3)
    assert found.bound.nats == pytest.approx(truth, abs=TOLERANCE)
    assert found.bound.standard_error < TOLERANCE


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize(
    ("prompt", "given", "suffix"), [(1, [], 0), (0, [], 1), (1, [], 1), (0, [0], 0), (1, [1], 1), (0, [0, 2, 3], 0)]
)
def test_what_is_given_is_conditioned_on(kind: str, prompt: int, given: list[int], suffix: int) -> None:
    model, tokens = EXACT[kind](3, 4, 2), [2, 0, 1, 1]
    text = tokens[prompt : 4 - suffix]
    scored = [prompt + i for i in range(len(text)) if i not in given]
    known = [i for i in range(4) if i not in scored]
    found = score(
        model, prompt=tokens[:prompt], input=text, suffix=tokens[4 - suffix :], given=given, seed=5, per_token=True
    )
    assert found.bound.nats == pytest.approx(-log_probability(joint_table(model), tokens, known, scored), abs=1e-5)
    assert found.tokens == len(scored)
    assert [each.position for each in found.token_nats] == [position - prompt for position in scored]
    assert [each.token for each in found.token_nats] == [tokens[position] for position in scored]


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_text_shorter_than_a_full_canvas_is_a_marginal(kind: str, length: int) -> None:
    """These models always see their whole length: what lies behind the text stays masked, so it is summed over."""
    model, tokens = EXACT[kind](4, 4, 2), tokens_for(4, length)
    truth = -log_probability(joint_table(model), tokens, [], range(length))
    assert score(model, input=tokens, seed=2).bound.nats == pytest.approx(truth, abs=TOLERANCE)


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_a_long_text_is_the_product_of_its_windows(overlap: int) -> None:
    model, tokens = table_model(3, 3, 2), [2, 0, 1, 1, 0, 2, 2]
    table, plan = joint_table(model), score_plan(model, input=tokens, overlap=overlap, seed=1)
    truth = 0.0
    for window in plan.windows:
        stretch = tokens[window.start : window.start + 3]
        known = [position for position in range(3) if position not in window.scored]
        truth -= log_probability(table, stretch, known, window.scored)
    found = score(model, input=tokens, overlap=overlap, seed=1)
    assert found.bound.nats == pytest.approx(truth, abs=TOLERANCE)
    assert found.tokens == 7


def test_windows_of_a_first_order_chain_lose_nothing() -> None:
    """Its stationary chain needs no more context than one token: windows of any overlap give the whole likelihood."""
    generator = torch.Generator().manual_seed(7)
    transition = torch.rand(4, 4, generator=generator, dtype=torch.float64).softmax(1)
    stationary = torch.linalg.matrix_power(transition, 200)[0]
    short, long = (markov_of(stationary, transition, length) for length in (5, 16))
    tokens = tokens_for(4, 16)
    whole = score(long, input=tokens, seed=1).bound.nats
    for overlap in (1, 2, 4):
        assert score(short, input=tokens, overlap=overlap, seed=1).bound.nats == pytest.approx(whole, abs=TOLERANCE)


def markov_of(initial: torch.Tensor, transition: torch.Tensor, length: int) -> ToyModel:
    sub_tokenizer = code_table(len(initial), 2)
    return ToyModel(MarkovDenoiser(initial.log(), transition.log(), length, sub_tokenizer), sub_tokenizer)


def test_plain_tokens_are_their_own_marginals() -> None:
    """With l = 1 a joint is a marginal: the published integrand, too, is the likelihood."""
    model, tokens = table_model(4, 3, 1), [3, 0, 2]
    found = score(model, input=tokens, seed=4, budget=600, published_integrand=True)
    truth = -log_probability(joint_table(model), tokens, [], range(3))
    assert found.bound.nats == pytest.approx(truth, abs=TOLERANCE)
    assert found.published is not None
    assert abs(found.published.nats - truth) < 5 * found.published.standard_error


# --- the published integrand is no bound -----------------------------------------------------------------------------


def dependent_digits() -> torch.Tensor:
    """p(d0, d1) of two base-4 digits, [16], whose entropy is 2.3180 nats: they tend to be equal, and small."""
    digits = torch.arange(4, dtype=torch.float64)
    scores = 1.5531 * torch.eye(4, dtype=torch.float64) - 0.2653 * (digits[:, None] + digits)
    return scores.flatten().softmax(0)


def entropy(p: torch.Tensor) -> float:
    return -float((p * p.log()).sum())


def test_the_published_integrand_lies_below_the_entropy() -> None:
    """The oracle of one token with two dependent base-4 digits: entropy 2.3180, bound 2.3180, published 2.1814."""
    p = dependent_digits()
    sub_tokenizer = SubTokenizer.from_base(16, 2, 4)
    model = ToyModel(TableDenoiser(p.log(), sub_tokenizer), sub_tokenizer)
    scores = [score(model, input=[token], published_integrand=True, seed=1) for token in range(16)]
    bound = sum(float(weight) * each.bound.nats for weight, each in zip(p, scores, strict=True))
    published = sum(
        float(weight) * each.published.nats for weight, each in zip(p, scores, strict=True) if each.published
    )
    both = entropy(p)
    of_one_given_the_other = 2 * both - sum(entropy(p.view(4, 4).sum(axis)) for axis in (0, 1))
    assert both == pytest.approx(2.3180, abs=1e-4)
    assert bound == pytest.approx(both, abs=TOLERANCE)
    assert published == pytest.approx(both / 2 + of_one_given_the_other / 2, abs=TOLERANCE)
    assert published == pytest.approx(2.1814, abs=1e-4)


# --- the official code's chain ---------------------------------------------------------------------------------------


def test_the_chain_of_the_official_code(tmp_path: Path) -> None:
    """Golden A, sub-token by sub-token along its own order."""
    import_checkpoint(Request(GOLDEN / "tiny_A.ckpt", tmp_path / "A"))
    bundle = open_bundle(tmp_path / "A")
    with np.load(GOLDEN / "tiny_A.npz") as arrays:
        tokens, order, expected = (arrays[key].tolist() for key in ("chain_x0", "order", "chain_log_probs"))
    model = ToyModel(bundle.denoiser, bundle.sub_tokenizer)
    active = ActivePass(model, along(score_plan(model, input=tokens), order), 0)
    links = [-nats_of(readouts(model, [active], 1)[0]) for _ in order]
    assert links == pytest.approx(expected, abs=3e-5)
    assert active.finished


def test_a_marginal_is_the_sum_of_the_joint() -> None:
    """On a network, where codes name no token and a digit may be forced."""
    model, tokens = prime_model(classes=30, length=4, digits=3, base=4), [29, 0, 17, 28]
    plan = score_plan(model, input=tokens, seed=9)
    active = ActivePass(model, plan, 0)
    for step in range(12):
        sub_token = plan.pass_of(0).order[step]
        position, j = divmod(sub_token, 3)
        canvas = active.states(1)[0].canvas
        logits = model.denoiser.joint_logits(canvas[None])[0, position : position + 1]
        joint = consistent_log_softmax(logits, canvas[position : position + 1], model.sub_tokenizer.codes)[0]
        shared = model.sub_tokenizer.codes[:, j] == model.sub_tokenizer.codes[tokens[position], j]
        assert abs(nats_of(readouts(model, [active], 1)[0]) + float(joint[shared].logsumexp(0))) < TOLERANCE, step
