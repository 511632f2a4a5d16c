"""The loop: it learns, resumes as if it had never stopped, and its commands leave a bundle that can be served."""

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner
from unmask_diffusion import SubTokenizer, sample
from unmask_model_store import open_bundle

from training.__main__ import app, change
from training.checkpoint import load_checkpoint, save_checkpoint
from training.codes import codes_by_context
from training.loop import Trainer
from training.recipe import Budget, Recipe
from training.run_tales import RECIPE
from training.sources import LEVEL_ENDS, TaleSource, end_token_id, level_weights
from training.tales import build_tokenizer, tale

TINY = Recipe(
    name="tiny",
    length=12,
    shortest=4,
    vocabulary_size=16,
    base=4,
    hidden_size=16,
    blocks=2,
    heads=2,
    batch_tokens=96,
    precision="float32",
    warm_up_steps=5,
)


class Repeats:
    """Canvases that repeat one token: everything that is visible tells what is hidden."""

    def batch(self, chance: random.Random, count: int, length: int, seen: int) -> Tensor:  # noqa: ARG002
        return torch.tensor([[chance.randrange(16)] * length for _ in range(count)])


def trainer(recipe: Recipe = TINY) -> Trainer:
    return Trainer(recipe, Repeats(), SubTokenizer.from_base(16, 2, 4).codes, torch.arange(16))


def test_it_learns() -> None:
    run = trainer()
    run.run(Budget(1, 120), lambda *_: None)
    assert run.history.losses[-1][2] < 0.6 * run.history.losses[0][2]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = trainer()
    whole.run(Budget(1, 30), lambda *_: None)

    class StoppedError(Exception):
        pass

    def stop(run: Trainer, progress: float) -> None:  # noqa: ARG001
        if run.history.step == 17:
            save_checkpoint(run, tmp_path)
            raise StoppedError

    with pytest.raises(StoppedError):
        trainer().run(Budget(1, 30), stop)
    resumed = trainer()
    load_checkpoint(resumed, tmp_path)
    resumed.run(Budget(1, 30), lambda *_: None)
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name]), name
    for name, weight in whole.average.weights.items():
        assert torch.equal(weight, resumed.average.weights[name]), name
    assert (whole.history.step, whole.history.tokens) == (resumed.history.step, resumed.history.tokens)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    save_checkpoint(trainer(), tmp_path)
    with pytest.raises(ValueError, match="hidden_size is 16"):
        load_checkpoint(trainer(change(TINY, ["hidden_size=32"])), tmp_path)


def test_a_checkpoint_of_another_text_is_refused(tmp_path: Path) -> None:
    save_checkpoint(trainer(), tmp_path)
    other = Trainer(TINY, Repeats(), SubTokenizer.from_base(16, 2, 4, list(range(15, -1, -1))).codes, torch.arange(16))
    with pytest.raises(ValueError, match="its text was another"):
        load_checkpoint(other, tmp_path)


def test_rates_rise_stay_and_fall() -> None:
    factors = [RECIPE.rate_factor(step, step / 1000) for step in range(1001)]
    assert factors[0] < 0.05
    assert factors[300] == factors[400] == 1.0
    assert factors[700] == pytest.approx(0.5)
    assert factors[1000] == 0.0


def test_levels_fade_into_each_other() -> None:
    assert level_weights(0) == [1, 0, 0, 0]
    assert level_weights(LEVEL_ENDS[0]) == [0, 1, 0, 0]
    assert level_weights((LEVEL_ENDS[1] + LEVEL_ENDS[2]) // 2) == pytest.approx([0, 0, 0.5, 0.5])
    assert level_weights(10**9) == [0, 0, 0, 1]
    assert level_weights(10**9, simple_share=0.8) == pytest.approx([0.4, 0.4, 0, 0.2])


def test_tales_are_cut_at_the_end_of_a_canvas_or_filled_up() -> None:
    tokenizer = build_tokenizer()
    end = end_token_id(tokenizer)
    text = tale(random.Random(1))
    ids = tokenizer.encode(text).ids
    source = TaleSource(tokenizer, end)
    assert source.canvases([text], 200).tolist() == [ids + [end] * (200 - len(ids))]
    assert source.canvases([text], 10).tolist() == [ids[:10]]


def test_words_that_stand_in_the_same_places_share_their_first_digit() -> None:
    # "a" names are followed by 8 and preceded by 9, "b" things the other way round
    chance = random.Random(0)
    lines = [[9, chance.randrange(4), 8, chance.randrange(4, 8)] for _ in range(400)]
    codes = codes_by_context(torch.tensor(lines), vocabulary_size=16, base=4)
    assert sorted(codes) == list(range(16))
    assert len({codes[token] // 4 for token in range(4)}) <= 2
    assert not {codes[token] // 4 for token in range(4)} & {codes[token] // 4 for token in range(4, 8)}


def test_one_command_leaves_a_bundle_that_can_be_served(tmp_path: Path) -> None:
    small = [f"--set={change}" for change in ("hidden_size=32", "blocks=1", "heads=2", "batch_tokens=512")]
    out = str(tmp_path / "run")
    result = CliRunner().invoke(app, ["tales", "--out", out, "--steps", "12", "--samples", "1", *small])
    assert result.exit_code == 0, result.output
    again = CliRunner().invoke(app, ["tales", "--out", out, "--steps", "14", "--samples", "0", "--resume", *small])
    assert "going on from step 12" in again.output
    bundle = open_bundle(tmp_path / "run" / "bundle")
    assert bundle.name == "tales"
    answer = sample(bundle, prompt="Once upon a time", max_tokens=8, seed=1)
    assert answer[0].text
    card = (tmp_path / "run" / "bundle" / "README.md").read_text()
    assert "sum of marginals" in card
    assert (tmp_path / "run" / "bundle" / "loss.png").stat().st_size > 1000


def test_an_unknown_number_of_the_recipe_is_refused() -> None:
    result = CliRunner().invoke(app, ["tales", "--set", "width=3"])
    assert result.exit_code == 2
    assert "hidden_size" in result.output
