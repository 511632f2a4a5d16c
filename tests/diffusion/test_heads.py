"""The independent head against plain loops; what it says of a token's digits; its draw, alone and in company."""

import itertools
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from unmask_diffusion import ActiveSample, NetworkShape, PrimeDenoiser, SubTokenizer, sample
from unmask_diffusion.networks.heads import ROWS_AT_ONCE, IndependentHead
from unmask_kernels import DrawError, Draws, InvalidLogitsError, NoCandidateError, consistent_log_softmax, draw

from tests.helpers import FALSE_ALARM_RATE, ToyModel, chi_square_p, code_table, plan_for, random_network, run_to_end

HIDDEN = 24
# C, l, b, and whether the codes are shuffled: every code is a class, some are not, one digit
TABLES = [(8, 3, 2, False), (9, 2, 3, True), (30, 2, 6, False), (5, 3, 2, True), (100, 4, 4, True), (7, 1, 7, False)]


def table_of(classes: int, digits: int, base: int, shuffled: bool) -> SubTokenizer:
    order = list(range(base**digits))
    if shuffled:
        random.Random(classes).shuffle(order)
    return SubTokenizer.from_base(classes, digits, base, order[:classes])


def random_head(sub_tokenizer: SubTokenizer, seed: int = 0) -> IndependentHead:
    head = IndependentHead(HIDDEN, sub_tokenizer.codes, sub_tokenizer.base).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return head


def random_features(rows: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, HIDDEN, generator=torch.Generator().manual_seed(seed))


def digit_logits(head: IndependentHead, features: Tensor, base: int) -> Tensor:
    """[N, l, b], by a plain product."""
    logits: Tensor = (features @ head.weight.T + head.bias).unflatten(1, (-1, base))
    return logits


def random_draws(sub_tokenizer: SubTokenizer, rows: int) -> Draws:
    """Draws of tokens of which any digits are revealed, at several temperatures and filters."""
    generator = torch.Generator().manual_seed(2)
    digits = sub_tokenizer.codes[torch.randint(sub_tokenizer.vocabulary_size, (rows,), generator=generator)]
    revealed = digits.masked_fill(torch.rand(digits.shape, generator=generator) < 0.5, sub_tokenizer.mask_id)
    numbers = torch.arange(rows)
    temperature = torch.tensor([1.0, 0.0, 0.7], dtype=torch.float64)[numbers % 3]
    top_p = torch.tensor([1.0, 1.0, 1.0, 0.5], dtype=torch.float64)[numbers % 4]
    return Draws(revealed, seeds=numbers % 5, events=numbers, temperature=temperature, top_k=numbers % 2, top_p=top_p)


# --- what it computes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_a_joint_logit_is_the_sum_of_its_digits_logits(table: tuple[int, int, int, bool]) -> None:
    sub_tokenizer = table_of(*table)
    head, features = random_head(sub_tokenizer), random_features(11)
    digits = digit_logits(head, features, sub_tokenizer.base)
    expected = torch.tensor(
        [
            [sum(float(row[j, digit]) for j, digit in enumerate(code)) for code in sub_tokenizer.codes.tolist()]
            for row in digits
        ]
    )
    logits = head.joint_logits(features)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("table", [(8, 3, 2, False), (9, 2, 3, True), (64, 2, 8, True)])
def test_where_every_code_is_a_class_the_softmax_factorises_into_the_digits(table: tuple[int, int, int, bool]) -> None:
    sub_tokenizer = table_of(*table)
    head, features = random_head(sub_tokenizer), random_features(11)
    of_digits = digit_logits(head, features, sub_tokenizer.base).log_softmax(-1)
    places = range(sub_tokenizer.sub_tokens_per_token)
    expected = torch.stack([of_digits[:, j, sub_tokenizer.codes[:, j]] for j in places]).sum(0)
    torch.testing.assert_close(head.joint_logits(features).log_softmax(-1), expected, rtol=1e-5, atol=1e-5)


def marginals(head: IndependentHead, features: Tensor, revealed: Tensor, sub_tokenizer: SubTokenizer) -> Tensor:
    """The probability of every digit, given the revealed ones [N, l], by enumeration of the joint: [N, l, b]."""
    joint = consistent_log_softmax(head.joint_logits(features), revealed, sub_tokenizer.codes).exp()
    sums = joint.new_zeros(*revealed.shape, sub_tokenizer.base)
    for code, probability in zip(sub_tokenizer.codes.tolist(), joint.T, strict=True):
        for j, digit in enumerate(code):
            sums[:, j, digit] += probability
    return sums


def states_with_a_digit_masked(sub_tokenizer: SubTokenizer, rows: int) -> Tensor:
    revealed = random_draws(sub_tokenizer, rows).revealed
    return revealed.scatter(1, torch.arange(rows)[:, None] % revealed.shape[1], sub_tokenizer.mask_id)


@pytest.mark.parametrize("table", [(8, 3, 2, False), (9, 2, 3, True), (64, 2, 8, True)])
def test_a_masked_digits_marginal_is_its_own_softmax_whatever_is_revealed(table: tuple[int, int, int, bool]) -> None:
    sub_tokenizer = table_of(*table)
    head, features = random_head(sub_tokenizer), random_features(40)
    revealed = states_with_a_digit_masked(sub_tokenizer, 40)
    masked = revealed == sub_tokenizer.mask_id
    found = marginals(head, features, revealed, sub_tokenizer)[masked]
    own = digit_logits(head, features, sub_tokenizer.base).softmax(-1)[masked]
    torch.testing.assert_close(found, own, rtol=1e-5, atol=1e-6)


def test_where_some_codes_name_no_class_renormalising_couples_the_digits() -> None:
    sub_tokenizer = table_of(5, 2, 3, shuffled=False)
    head, features = random_head(sub_tokenizer), random_features(40)
    revealed = torch.stack([torch.ones(40, dtype=torch.int64), torch.full((40,), 3)], dim=1)
    found = marginals(head, features, revealed, sub_tokenizer)[:, 1]
    own = digit_logits(head, features, 3).softmax(-1)[:, 1]
    assert bool((found[:, 2] == 0).all())  # the digits 1, 2 name no class
    torch.testing.assert_close(found[:, :2], own[:, :2] / own[:, :2].sum(1, keepdim=True), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parameterization", ["joint", "independent"])
def test_the_shape_counts_the_parameters(parameterization: Any) -> None:  # noqa: ANN401 — a literal
    shape = NetworkShape(6, 100, 2, 10, HIDDEN, blocks=2, heads=2, parameterization=parameterization)
    network = PrimeDenoiser(shape)
    assert shape.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert network.state_dict()["output.weight"].shape == (shape.outputs, HIDDEN)
    assert network.head(random_features(3)).shape == (3, 100)


# --- its draw ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_the_draw_is_the_draw_of_its_joint_logits(table: tuple[int, int, int, bool]) -> None:
    sub_tokenizer = table_of(*table)
    head, features = random_head(sub_tokenizer), random_features(3 * ROWS_AT_ONCE + 5)
    draws = random_draws(sub_tokenizer, len(features))
    expected = draw(head.joint_logits(features), codes=sub_tokenizer.codes, **vars(draws))
    assert torch.equal(head.draw(features, sub_tokenizer.codes, draws), expected)


@pytest.mark.parametrize("table", [(9, 2, 3, True), (100, 4, 4, True)])
def test_a_row_does_not_know_its_company(table: tuple[int, int, int, bool]) -> None:
    sub_tokenizer = table_of(*table)
    head, features = random_head(sub_tokenizer), random_features(200)
    draws = random_draws(sub_tokenizer, 200)
    logits, drawn = head.joint_logits(features), head.draw(features, sub_tokenizer.codes, draws)
    for rows in (torch.tensor([0]), torch.tensor([150]), torch.arange(199, 30, -1), torch.arange(60, 70)):
        assert torch.equal(head.joint_logits(features[rows]), logits[rows])
        assert torch.equal(head.draw(features[rows], sub_tokenizer.codes, draws.take(rows)), drawn[rows])
    none = torch.arange(0)
    assert head.draw(features[none], sub_tokenizer.codes, draws.take(none)).shape == (0,)


def test_a_draw_has_the_logits_of_few_rows_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sub_tokenizer = table_of(9, 2, 3, shuffled=False)
    head, rows = random_head(sub_tokenizer), []
    plain = head.joint_logits

    def counted(features: Tensor) -> Tensor:
        rows.append(len(features))
        return plain(features)

    monkeypatch.setattr(head, "joint_logits", counted)
    head.draw(random_features(1000), sub_tokenizer.codes, random_draws(sub_tokenizer, 1000))
    assert sum(rows) == 1000
    assert max(rows) <= 64


@pytest.mark.parametrize(
    ("impossible", "broken", "kind"),
    [([3, 70, 199], [], NoCandidateError), ([3, 130], [64, 65], InvalidLogitsError), ([], [199], InvalidLogitsError)],
)
def test_rows_that_cannot_be_drawn_are_named_and_the_others_drawn(
    impossible: list[int], broken: list[int], kind: type[DrawError]
) -> None:
    sub_tokenizer = table_of(5, 2, 3, shuffled=False)
    head, features = random_head(sub_tokenizer), random_features(200)
    draws = random_draws(sub_tokenizer, 200)
    fine = head.draw(features, sub_tokenizer.codes, draws)
    revealed = draws.revealed.clone()
    revealed[impossible] = 2  # names no class
    features[broken] = torch.nan
    with pytest.raises(kind) as caught:
        head.draw(features, sub_tokenizer.codes, replace(draws, revealed=revealed))
    assert type(caught.value) is kind
    assert (caught.value.no_candidate, caught.value.invalid) == (impossible, broken)
    fine[impossible + broken] = -1
    assert torch.equal(caught.value.classes, fine)


# --- the sampler over it -------------------------------------------------------------------------------------------


def independent_model(classes: int = 27, digits: int = 3, length: int = 12) -> ToyModel:
    sub_tokenizer = code_table(classes, digits)
    shape = NetworkShape(
        length, classes, digits, sub_tokenizer.base, HIDDEN, blocks=2, heads=2, parameterization="independent"
    )
    return ToyModel(random_network(shape), sub_tokenizer, full_canvas=False)


def test_the_same_seed_gives_the_same_tokens_alone_and_among_others() -> None:
    model = independent_model()
    kinds: list[dict[str, Any]] = [{}, {"sampler": {"steps": 2}}, {"temperature": 0.5}, {"top_p": 0.8}]
    plans = [plan_for(model, max_tokens=1 + seed % 12, seed=seed, **kinds[seed % 4]) for seed in range(24)]
    logs = run_to_end(model, [ActiveSample.start(model, plan, 0) for plan in plans], places=7)
    for plan, log in zip(plans, logs, strict=True):
        assert run_to_end(model, [ActiveSample.start(model, plan, 0)]) == [log]


def test_digits_of_one_token_drawn_together_are_independent() -> None:
    """A chi-square test of 6,400 tokens against the product of the digits' softmaxes."""
    model = independent_model(classes=9, digits=2, length=1)
    network = model.denoiser
    assert isinstance(network, PrimeDenoiser)
    assert isinstance(network.output, IndependentHead)
    with torch.inference_mode():
        features = network.trunk([model.sub_tokenizer.masked(1)], [torch.tensor([0])])
        first, second = digit_logits(network.output, features, 3).double().softmax(-1)[0].tolist()
    answers = (a for seed in range(100) for a in sample(model, n=64, seed=seed, sampler={"steps": 1}))
    counts = Counter(answer.token_ids for answer in answers)
    expected: dict[tuple[int, ...], float] = {
        (3 * i + j,): first[i] * second[j] for i, j in itertools.product(range(3), repeat=2)
    }
    assert chi_square_p(counts, expected) > FALSE_ALARM_RATE


def test_digits_that_name_no_class_never_come_out() -> None:
    model = independent_model(classes=5, digits=3)
    for answer in sample(model, n=64, seed=4, temperature=5.0):
        assert all(0 <= token < 5 for token in answer.token_ids)
