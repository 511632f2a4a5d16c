"""The variants of groups that are tried: they predict and extrapolate as the server does."""

import json
from pathlib import Path

import pytest
import torch
from unmask_diffusion.high_order import extrapolate, weights
from unmask_diffusion.schedule import near_equal_steps

from benchmarks.__main__ import run_one
from benchmarks.papers import high_order
from benchmarks.papers.chain import random_chain

CHAIN = random_chain()


def test_a_prediction_is_the_models_posterior() -> None:
    sampler = high_order.Sampler(CHAIN, 2)
    sampler.draw(high_order.at(sampler.predict(), sampler.part(0, 50)), sampler.part(0, 50))
    model = CHAIN.model(1)
    logits = model.denoiser.joint_logits(
        sampler.tokens.where(sampler.tokens >= 0, model.sub_tokenizer.mask_id)[..., None]
    )
    assert torch.allclose(sampler.predict(), logits.softmax(-1).double(), atol=1e-6)
    hidden = sampler.part(0, 50)
    assert torch.allclose(sampler.predict(hidden), high_order.Sampler(CHAIN, 2).predict())


def test_one_variant_is_the_servers() -> None:
    p, q = torch.rand(2, 1, 4, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(-1)
    groups = near_equal_steps(range(11), 3)
    for group in (1, 2):
        c = high_order.own_time(group, len(groups[group - 1].reveal), 4)
        assert c.tolist() == pytest.approx(list(weights(groups, group)))
        found = high_order.probabilities(p, q, c)[0]
        assert torch.allclose(found, extrapolate(p[0].log(), q[0].log(), c).exp())


def test_every_variant_draws_whole_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "variants.json"
    run_one("high_order", ["--evaluations", "6", "--sequences", "3", "--json", str(file)])
    found = json.loads(file.read_text())["variants"]
    assert [each["variant"] for each in found[1:]] == [*high_order.VARIANTS]
    assert all(2 < each["nats"] < 20 for each in found)
    assert "extrapolation" in capsys.readouterr().out
