"""The loop: it learns, resumes as if it had never stopped, and its commands leave a bundle that can be served."""

import random
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner, Result
from unmask_diffusion import NetworkShape, PrimeDenoiser, SubTokenizer, sample
from unmask_model_store import open_bundle

from training import run_tales, session
from training.__main__ import app, change
from training.checkpoint import load_checkpoint, save_checkpoint
from training.codes import codes_by_context, codes_by_group
from training.evaluation import Model, Order, free_samples
from training.loop import Trainer
from training.recipe import Budget, Recipe
from training.run_tales import RECIPE
from training.sources import TaleSource, end_token_id
from training.tales import build_tokenizer, tale

TINY = Recipe(
    name="tiny",
    length=12,
    usual_length=8,
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

    def batch(self, chance: random.Random, count: int, length: int) -> Tensor:
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


def test_few_lengths_are_drawn_and_most_are_the_usual_one() -> None:
    run = Trainer(
        change(TINY, ["length=40", "usual_length=24", "shortest=8"]), Repeats(), trainer().codes, trainer().used
    )
    lengths = Counter(run._draw_length(random.Random(seed)) for seed in range(1000))
    assert set(lengths) == {8, 16, 24, 32, 40}
    assert lengths[24] > 750
    assert lengths[40] > 70


def test_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": False})
    assert RECIPE.product_dtype(cpu) == torch.float32
    assert RECIPE.product_dtype(gpu) == torch.bfloat16
    assert change(RECIPE, ["precision=bfloat16"]).product_dtype(cpu) == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert RECIPE.product_dtype(cpu) == torch.bfloat16


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


def test_each_group_of_words_has_first_digits_of_its_own() -> None:
    codes = codes_by_group([[3, 9], [1, 2, 4, 5, 6]], vocabulary_size=14, base=4)
    assert codes[3] // 4 == codes[9] // 4 == 0
    assert {codes[token] // 4 for token in (1, 2, 4, 5)} == {1}
    assert codes[6] // 4 == 2
    assert len(set(codes)) == 14
    with pytest.raises(ValueError, match="5 groups of words do not fit 4 first digits"):
        codes_by_group([[1], [2], [3], [4], [5]], vocabulary_size=14, base=4)


def test_an_order_reveals_block_after_block() -> None:
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(Order(1).positions(50, 7, 2, generator) // 2, torch.arange(14).expand(50, 14) // 2)
    assert torch.equal(Order(4).positions(50, 7, 2, generator)[:, :8].sort().values, torch.arange(8).expand(50, 8))
    assert torch.equal(Order().positions(50, 7, 2, generator).sort().values, torch.arange(14).expand(50, 14))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_samples_follow_the_law_of_exact_first_hitting(temperature: float) -> None:
    """One token, both orders of its two digits, against the enumeration of all ways."""
    torch.manual_seed(0)
    network = PrimeDenoiser(NetworkShape(1, 9, 2, 3, 16, 1, 2, True)).eval()
    torch.nn.init.normal_(network.output.weight, std=1.0)
    model = Model(network, SubTokenizer.from_base(9, 2, 3))

    def law(first: int, second: int) -> Tensor:
        with torch.no_grad():
            return (network.joint_logits(torch.tensor([[[first, second]]]))[0, 0] / temperature).view(3, 3)

    expected = torch.zeros(3, 3)
    empty = law(3, 3).flatten().softmax(0).view(3, 3)
    for i, j in product(range(3), range(3)):
        expected[i, j] += 0.5 * empty.sum(1)[i] * law(i, 3)[i].softmax(0)[j]
        expected[i, j] += 0.5 * empty.sum(0)[j] * law(3, j)[:, j].softmax(0)[i]
    count = 8000
    drawn = torch.cat(list(free_samples(model, Order(1, temperature), count, 0)))
    found = drawn.flatten().bincount(minlength=9)
    chi_square = float(((found - count * expected.flatten()) ** 2 / (count * expected.flatten())).sum())
    assert chi_square < 26.1  # 8 degrees of freedom, one false alarm in a thousand


@pytest.fixture
def _small_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_tales, "HELD_OUT", 16)


commands = pytest.mark.usefixtures("_small_evaluations")
SMALL = [f"--set={change}" for change in ("hidden_size=32", "blocks=1", "heads=2", "batch_tokens=512")]


def command(out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["tales", "--out", str(out), *SMALL, *arguments])


@commands
def test_one_command_leaves_a_bundle_that_can_be_served(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = command(out, "--steps", "50", "--samples", "1")
    assert result.exit_code == 0, result.output
    assert f"unmask serve --model {out / 'bundle'}" in result.output
    bundle = open_bundle(out / "bundle")
    assert bundle.name == "my-tales", "not the name of the model that ships"
    assert sample(bundle, prompt="Once upon a time", max_tokens=8, seed=1)[0].text
    card = (out / "bundle" / "README.md").read_text()
    assert card.startswith("# my-tales\n")
    assert "sum of marginals" in card
    assert "| blocks of 8 tokens, temperature 0.7 | 0% (0 of 1) |" in card
    assert (out / "bundle" / "loss.png").stat().st_size > 1000
    state = torch.load(out / "checkpoint.pt", weights_only=True)["history"]
    assert state["step"] == 50
    assert state["losses"][-1][2] < state["losses"][0][2]
    again = command(out, "--steps", "52", "--samples", "0", "--resume", "--name", "tales")
    assert "going on from step 50" in again.output
    assert open_bundle(out / "bundle").name == "tales"


@commands
def test_the_command_for_a_gpu(tmp_path: Path) -> None:
    """Twenty steps on a GPU, or on the CPU where there is none."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result = command(tmp_path, "--device", device, "--minutes", "10", "--steps", "20", "--samples", "0")
    assert result.exit_code == 0, result.output
    assert open_bundle(tmp_path / "bundle").denoiser.length == RECIPE.length


@commands
def test_control_c_waits_for_the_step_and_leaves_checkpoint_and_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = TaleSource.batch

    def interrupted(source: TaleSource, chance: random.Random, count: int, length: int) -> Tensor:
        if chance.random() < 0.2:
            signal.raise_signal(signal.SIGINT)
        return drawn(source, chance, count, length)

    monkeypatch.setattr(TaleSource, "batch", interrupted)
    before = signal.getsignal(signal.SIGINT)
    result = command(tmp_path, "--steps", "1000", "--samples", "8")
    assert result.exit_code == 130
    assert signal.getsignal(signal.SIGINT) == before
    steps = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["history"]["step"]
    assert f"stopped after step {steps}; --resume goes on from there" in result.output
    assert 1 <= steps < 100
    assert open_bundle(tmp_path / "bundle").name == "my-tales"


@commands
def test_control_c_while_samples_are_drawn_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(model: Model, order: Order, count: int, seed: int) -> Iterator[Tensor]:  # noqa: ARG001
        assert open_bundle(tmp_path / "bundle").name == "my-tales", "the bundle is written before samples are drawn"
        yield torch.zeros(1, RECIPE.length, dtype=torch.int64)
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "free_samples", interrupted)
    result = command(tmp_path, "--steps", "2", "--samples", "8")
    assert result.exit_code == 0, result.output
    assert "the model is complete; its card has no samples" in result.output
    assert "unmask serve" in result.output


@commands
def test_samples_are_part_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "seconds_per_sample", lambda *_: 0.2 / len(run_tales.ORDERS))
    drawn: list[int] = []

    def free(_: Model, __: Order, count: int, ___: int) -> Iterator[Tensor]:
        drawn.append(count)
        yield torch.zeros(count, RECIPE.length, dtype=torch.int64)

    monkeypatch.setattr(session, "free_samples", free)
    result = command(tmp_path, "--minutes", "0.1", "--samples", "1000")
    assert "training until minute 0.1, then 6 samples in each order" in result.output
    assert drawn == [6] * len(run_tales.ORDERS)


def test_an_unknown_number_of_the_recipe_is_refused() -> None:
    result = CliRunner().invoke(app, ["tales", "--set", "width=3"])
    assert result.exit_code == 2
    assert "hidden_size" in result.output
