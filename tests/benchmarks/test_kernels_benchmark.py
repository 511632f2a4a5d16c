"""The kernels' benchmark on tiny sizes. Nothing here looks at a clock's figures."""

import json
from functools import partial

import pytest
import torch
from unmask_kernels import agrees

from benchmarks.__main__ import run_one
from benchmarks.kernels import __main__ as kernels

CPU = torch.device("cpu")


def test_writes_all_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    run_one("kernels", ["--rows", "2", "--classes", "101", "--seconds", "0", "--json"])
    figures = json.loads(capsys.readouterr().out)
    measured = [each for each in figures["kernels"] if each["device"] == "cpu"]
    assert [each["kernel"].split(",")[0] for each in measured] == [
        "draw",
        "draw",
        "consistent_log_softmax",
        "consistent_log_softmax",
        "random_words",
    ]
    assert {each["shape"] for each in measured} == {"[2, 101] float32"}
    assert measured[0]["bytes_moved"] == 4 * 2 * 101
    assert measured[2]["bytes_moved"] == 3 * 4 * 2 * 101
    assert all(each["seconds"] > 0 and each["ratio_to_reference"] > 0 for each in measured)
    assert ("not measured" in figures["gpu"]) == (not torch.cuda.is_available())


def test_the_slowest_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"ours": 4.0, "reference": 10.0, "copy": 1.0, "matmul": 3.0}
    monkeypatch.setattr(kernels, "seconds_of", lambda run, **_: seconds[run()])
    limits = {name: partial(str, name) for name in ("copy", "matmul")}
    row = kernels.measure(
        kernels.Case("a kernel", "[1]", partial(str, "ours"), partial(str, "reference"), 8, limits), CPU, 1
    )
    assert (row.ratio_to_reference, row.ratio_to_matmul) == (2.5, 4 / 3)
    assert (row.limit, row.fraction_of_limit) == ("matmul", 0.75)


@pytest.mark.parametrize(("classes", "base"), [(1, 1), (16, 2), (17, 3), (50257, 15), (50625, 15), (50626, 16)])
def test_base_of_four_digits(classes: int, base: int) -> None:
    assert kernels.base_of(classes) == base


def test_inputs_are_as_they_say() -> None:
    inputs = kernels.Inputs.make(5, 101, CPU)
    for digits in (0, 2, 4):
        shown = inputs.revealed(digits) <= inputs.codes.max()
        assert shown.tolist() == [[True] * digits + [False] * (4 - digits)] * 5
        assert bool(agrees(inputs.revealed(digits), inputs.codes).any(1).all())


@pytest.mark.triton
def test_bare_noise_is_the_noise_of_a_draw() -> None:
    """The greatest of each 1024 classes' noise, seed and event 1."""
    from unmask_kernels.philox import gumbel_from_words, philox_4x32

    from benchmarks.kernels.gpu_limits import bare_noise

    device = torch.device("cuda") if torch.cuda.is_available() else CPU
    one, zero = torch.tensor([1]), torch.tensor([0])
    words = philox_4x32((torch.arange(2048), one, zero, zero), (one, zero))
    expected = gumbel_from_words(words[0], words[1]).view(2, 1024).amax(1)
    assert torch.allclose(bare_noise(2000, device).cpu().double(), expected, rtol=1e-6)


def test_copies_move_what_they_say() -> None:
    copied = kernels.copy_of(1000, CPU)()
    assert isinstance(copied, torch.Tensor)
    assert copied.numel() == 500
