"""The toy: its products against plain sums, its computed distributions against enumeration and the real sampler."""

import dataclasses
import json
import math
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner
from unmask_diffusion import Plan, Schedule, Step, SubTokenizer, sample, smallest_base
from unmask_diffusion.networks import Parameterization
from unmask_model_store import open_bundle

from tests.helpers import FALSE_ALARM_RATE, chi_square_p
from training.objective import token_losses
from training.recipe import Budget
from training.toy.__main__ import app
from training.toy.digits import DigitProducts
from training.toy.distribution import coarse, cross_entropy, distribution, entropy, total_variation
from training.toy.experiment import EXACT, WHOLE_TOKENS
from training.toy.learning import Learnt, joint_logits, learn, shape_of
from training.toy.pictures import PICTURES, SIDE, density, draw_points
from training.toy.sampling import Reveals, draw

PARAMETERIZATIONS: list[Parameterization] = ["joint", "independent"]
SUB_TOKENS = 3


def learnt(parameterization: Parameterization, steps: int = 3) -> Learnt:
    """A network that has hardly learnt anything, made less flat."""
    made = learn(density("word"), shape_of(SUB_TOKENS, parameterization), Budget(1, steps), 0, lambda *_: None)
    generator = torch.Generator().manual_seed(1)
    made.network.output.weight.add_(0.1 * torch.randn(made.network.output.weight.shape, generator=generator))
    return made


@dataclasses.dataclass(frozen=True)
class AlongOne(Reveals):
    """Every sample along one schedule."""

    schedule: Schedule | None = None

    def plan(self, learnt: Learnt, count: int, seed: int) -> Plan:
        plan = super().plan(learnt, count, seed)
        return dataclasses.replace(plan, schedules=(self.schedule or plan.schedules[0],) * count)


@pytest.fixture(scope="module")
def networks() -> dict[Parameterization, Learnt]:
    return {parameterization: learnt(parameterization) for parameterization in PARAMETERIZATIONS}


# --- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_distribution_that_is_neither_flat_nor_a_product(name: str) -> None:
    picture = density(name)
    assert picture.shape == (SIDE, SIDE)
    assert float(picture.sum()) == pytest.approx(1)
    assert float(picture.min()) >= 0
    independent = picture.sum(1)[:, None] * picture.sum(0)
    assert total_variation(picture, independent) > 0.2
    assert entropy(picture) < 2 * math.log(SIDE) - 0.5


def test_points_are_drawn_from_the_picture() -> None:
    """Chi-square of 100,000 points in 8 x 8 squares."""
    picture = density("moons")
    points = draw_points(picture, 100_000, torch.Generator().manual_seed(0)) // (SIDE // 8)
    counts: Counter[tuple[int, ...]] = Counter((x, y) for x, y in points.tolist())
    expected: dict[tuple[int, ...], float] = {
        (x, y): float(coarse(picture, 8)[x, y]) for x, y in product(range(8), repeat=2)
    }
    assert chi_square_p(counts, expected) > FALSE_ALARM_RATE


# --- products ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "digits"), [(8, 3), (9, 2), (30, 3), (7, 1)])
def test_marginal_losses_equal_the_plain_ones_and_their_gradient(classes: int, digits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    sub_tokenizer = SubTokenizer.from_base(classes, digits, smallest_base(classes, digits))
    logits = torch.randn(50, classes, generator=generator).mul(3).requires_grad_()
    target = torch.randint(classes, (50,), generator=generator)
    hidden = torch.rand(50, digits, generator=generator) < 0.5
    shown = sub_tokenizer.codes[target].masked_fill(hidden, sub_tokenizer.mask_id)
    found = DigitProducts(sub_tokenizer).marginal_losses(logits, target, shown)
    expected = token_losses(logits, target, hidden, sub_tokenizer.codes, "marginals")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    of_found, of_expected = (torch.autograd.grad(loss.sum(), logits)[0] for loss in (found, expected))
    torch.testing.assert_close(of_found, of_expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_the_training_logits_are_the_served_networks(
    networks: dict[Parameterization, Learnt], parameterization: Parameterization
) -> None:
    made = networks[parameterization]
    digits = made.sub_tokenizer.codes[torch.tensor([[3, 500], [77, 210]])]
    digits[0, 1, 2] = digits[1, 0, 0] = made.sub_tokenizer.mask_id
    found = joint_logits(made.network, DigitProducts(made.sub_tokenizer), digits, torch.arange(4))
    torch.testing.assert_close(found, made.network.joint_logits(digits).flatten(0, 1), rtol=1e-4, atol=1e-4)


# --- distributions -------------------------------------------------------------------------------------------------


def chances(made: Learnt, digits: Tensor, position: int) -> Tensor:
    """p(class of a position | digits), by the served network and plain masking, float64 [512]."""
    logits = made.network.joint_logits(digits[None])[0, position].double()
    shown = digits[position] != made.sub_tokenizer.mask_id
    agrees = (made.sub_tokenizer.codes[:, shown] == digits[position, shown]).all(1)
    return logits.masked_fill(~agrees, -torch.inf).softmax(0)


def chain(made: Learnt, groups: list[list[int]], point: tuple[int, int]) -> float:
    """The probability of one point along a schedule, one group after the other."""
    codes = made.sub_tokenizer.codes
    digits, probability = made.sub_tokenizer.masked(2), 1.0
    for group in groups:
        before = digits.clone()
        for position in sorted({sub_token // SUB_TOKENS for sub_token in group}):
            places = [sub_token % SUB_TOKENS for sub_token in group if sub_token // SUB_TOKENS == position]
            wanted = codes[point[position], places]
            same = (codes[:, places] == wanted).all(1)
            probability *= float(chances(made, before, position)[same].sum())
            digits[position, places] = wanted
    return probability


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("groups", [[[4], [0], [2], [5], [1], [3]], [[0, 1, 2], [3, 4, 5]], [[5, 0, 3], [1, 4, 2]]])
def test_the_computed_distribution_is_every_points_chain(
    networks: dict[Parameterization, Learnt], parameterization: Parameterization, groups: list[list[int]]
) -> None:
    made = networks[parameterization]
    found = distribution(made, [Step(tuple(group)) for group in groups])
    assert float(found.sum()) == pytest.approx(1)
    for point in ((0, 0), (511, 3), (100, 400), (256, 255)):
        assert float(found[point]) == pytest.approx(chain(made, groups, point), rel=1e-4)


def test_codes_that_name_no_class_have_no_probability() -> None:
    made = learn(density("word"), shape_of(2, "independent"), Budget(1, 2), 0, lambda *_: None)  # 23 ** 2 = 529 codes
    found = distribution(made, [Step((each,)) for each in (0, 3, 1, 2)])
    assert float(found.sum()) == pytest.approx(1)


@pytest.mark.parametrize("sampler", [EXACT, WHOLE_TOKENS, Reveals("2 groups", steps=2)])
def test_the_servers_sampler_draws_from_the_computed_distribution(
    networks: dict[Parameterization, Learnt], sampler: Reveals
) -> None:
    """Chi-square in 8 x 8 squares of 1024 points along one schedule."""
    made = networks["independent"]
    schedule = sampler.plan(made, 1, 5).schedules[0]
    drawn = draw(made, AlongOne(sampler.name, sampler.steps, schedule=schedule), 1024, 7, lambda _: None)
    squares = coarse(distribution(made, schedule.steps), 8)
    cells = [*product(range(8), repeat=2)]
    counts: dict[tuple[int, ...], int] = {(x, y): round(1024 * float(coarse(drawn, 8)[x, y])) for x, y in cells}
    expected: dict[tuple[int, ...], float] = {(x, y): float(squares[x, y]) for x, y in cells}
    assert chi_square_p(counts, expected) > FALSE_ALARM_RATE


def test_whole_tokens_of_an_independent_head_are_products_of_digits(networks: dict[Parameterization, Learnt]) -> None:
    """The first token, whole: its digits are independent with one head, and not with the other."""
    excess = {}
    for parameterization, made in networks.items():
        digits = WHOLE_TOKENS.plan(made, 1, 0).schedules[0].steps
        first = distribution(made, digits).sum(1).view(8, 8, 8)
        of_digits = [first.sum(others) for others in ((1, 2), (0, 2), (0, 1))]
        excess[parameterization] = total_variation(first, torch.einsum("i,j,k->ijk", *of_digits))
    assert excess["independent"] < 1e-6
    assert excess["joint"] > 1e-3


def test_total_variation_and_cross_entropy_of_what_is_known() -> None:
    flat = torch.full((SIDE, SIDE), 1 / SIDE**2, dtype=torch.float64)
    half = torch.zeros_like(flat)
    half[: SIDE // 2] = 2 / SIDE**2
    assert total_variation(flat, flat) == 0
    assert total_variation(flat, half) == pytest.approx(0.5)
    assert cross_entropy(half, flat) == pytest.approx(math.log(SIDE**2))
    assert entropy(half) == pytest.approx(math.log(SIDE**2 / 2))
    assert torch.allclose(coarse(half, 2), torch.tensor([[0.5, 0.5], [0, 0]], dtype=torch.float64))


# --- the command ---------------------------------------------------------------------------------------------------


def test_training_in_steps_is_reproducible_and_learns() -> None:
    losses: list[float] = []
    first = learn(density("rings"), shape_of(3, "independent"), Budget(1, 30), 4, lambda _, loss: losses.append(loss))
    again = learn(density("rings"), shape_of(3, "independent"), Budget(1, 30), 4, lambda *_: None)
    assert first.steps == 30
    for one, other in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert sum(losses[-10:]) < 0.97 * sum(losses[:10])


def test_the_command_leaves_a_picture_figures_and_bundles(tmp_path: Path) -> None:
    options = ["--steps", "2", "--sub-tokens", "3", "--orders", "1", "--samples", "70", "--bundles"]
    result = CliRunner().invoke(app, [*options, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((tmp_path / "toy.json").read_text())
    assert 0 < figures["counting_floor"] < 1
    for name in PARAMETERIZATIONS:
        head: dict[str, Any] = figures["heads"][name]
        assert head["bound_nats_per_point"] > figures["entropy_nats_per_point"]
        evaluations = {row["sampler"]: row["evaluations"] for row in head["samplers"]}
        assert evaluations == {"exact": 6, "3 groups": 3, "2 groups": 2, "whole tokens": 2}
        assert all(0 < row["squares"] <= row["points"] < 1 for row in head["samplers"])
        bundle = open_bundle(tmp_path / name)
        assert bundle.config.architecture == "prime"
        assert bundle.config.parameterization == name
        (answer,) = sample(bundle, canvas=[None, 4], seed=1)
        assert answer.token_ids[-1] < SIDE


@pytest.mark.parametrize(
    ("options", "needle"),
    [(["--picture", "mona"], "rings"), (["--sub-tokens", "5"], "72"), (["--orders", "0"], "--orders")],
)
def test_options_that_cannot_be_are_named(options: list[str], needle: str) -> None:
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 2
    assert needle in result.output
