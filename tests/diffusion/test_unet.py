"""Pictures by a U-Net: the log is the only state, and no picture knows another. Parity is in tests/model_store."""

import random
from collections.abc import Sequence

import pytest
import torch
from torch import nn
from unmask_diffusion import ActiveSample, Reveal, ScoreRequest, UNetDenoiser, evaluate, make_score_plan, run_score
from unmask_diffusion.networks.unet import GROUPS
from unmask_kernels import consistent_log_softmax

from tests.helpers import PICTURES, picture_model, plan_for, run_to_end

MODEL = picture_model()
NETWORK = MODEL.denoiser
L = PICTURES.length


def started(**fields: object) -> list[ActiveSample]:
    plan = plan_for(MODEL, canvas=[None] * L, **fields)
    return [ActiveSample.start(MODEL, plan, index) for index in range(plan.request.n)]


def several() -> list[ActiveSample]:
    return [
        *started(seed=1, n=2, sampler={"steps": 12}),
        *started(seed=2, sampler={"name": "ancestral", "steps": 9}, temperature=0.7),
        *started(seed=3, sampler={"steps": 6, "high_order": "extrapolation"}),
    ]


def taken_over(sample: ActiveSample, log: Sequence[Reveal]) -> ActiveSample:
    again = ActiveSample.start(MODEL, sample.plan, sample.index)
    for reveal in log:
        again.reveal(reveal)
    return again


def test_a_picture_taken_over_in_the_middle_is_the_same() -> None:
    """Alone, or in changing company, with drafts and candidates, by another worker after any of its steps."""
    expected = [run_to_end(MODEL, [each])[0] for each in several()]
    chance, samples = random.Random(1), several()
    logs: list[list[Reveal]] = [[] for _ in samples]
    takeovers = 0
    while running := [i for i, each in enumerate(samples) if not each.finished]:
        turn = chance.sample(running, chance.randint(1, len(running)))
        for i in turn:
            if chance.random() < 0.4:
                samples[i] = taken_over(samples[i], logs[i])
                takeovers += bool(logs[i])
            samples[i].candidates = chance.choice([0, 2])
        budgets = [chance.randint(1, 3) for _ in turn]
        for i, outcome in zip(turn, evaluate(MODEL, [samples[i] for i in turn], budgets), strict=True):
            logs[i] += [entry for entry in samples[i].apply(outcome) if isinstance(entry, Reveal)]
    assert logs == expected
    assert takeovers >= 3


def test_given_digits_stay_and_the_rest_is_drawn() -> None:
    """The papers' imputation: the high digit of every byte is given."""
    given = [[place % 16, None] for place in range(L)]
    (sample,) = (
        ActiveSample.start(MODEL, plan_for(MODEL, sub_tokens=given, seed=4, sampler={"steps": 8}), index)
        for index in range(1)
    )
    run_to_end(MODEL, [sample])
    assert sample.digits[:, 0].tolist() == [high for high, _ in given]
    assert int(sample.digits.max()) < 16
    assert len(set(sample.digits[:, 1].tolist())) > 4


def test_partly_known_pixels_have_colours() -> None:
    """Red's high digit alone: the mean of the sixteen bytes that it leaves; nothing known: the mean of all bytes."""
    digits = MODEL.sub_tokenizer.masked(L)
    digits[0] = torch.tensor([10, 16])
    digits[1] = torch.tensor([3, 5])
    assert MODEL.image is not None
    assert MODEL.image.paint(digits)[0, 0].tolist() == [168, 53, 128, 255]  # 167.5, 53 and 127.5


def test_pictures_are_scored() -> None:
    """Scores need nothing of their own: the features are the joint logits."""
    ids = [(7 * place) % 256 for place in range(L)]
    plan = make_score_plan(MODEL, ScoreRequest(input=ids, seed=1, estimator="integral", budget=16))
    score = run_score(MODEL, plan)
    assert score.bound.nats == pytest.approx(L * torch.log(torch.tensor(256.0)), rel=0.5)
    canvas = MODEL.sub_tokenizer.masked(L)
    (logits,) = NETWORK.trunk([canvas], [torch.tensor([5])])
    joint = consistent_log_softmax(logits[None], canvas[5:6], MODEL.sub_tokenizer.codes)
    assert float(joint.exp().sum()) == pytest.approx(1, rel=1e-5)


def test_a_canvas_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="48 tokens"):
        NETWORK.trunk([MODEL.sub_tokenizer.masked(L - 1)], [torch.tensor([0])])
    with pytest.raises(ValueError, match="sub_tokens"):
        NETWORK.joint_logits(torch.zeros(1, L, 3, dtype=torch.int64))
    assert NETWORK.joint_logits(torch.zeros(0, L, 2, dtype=torch.int64)).shape == (0, L, 256)


def test_norms_see_contiguous_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """In channels_last a CPU's group norm loses three digits, which no golden number of a small network may show."""
    seen: list[bool] = []
    forward = nn.GroupNorm.forward

    def noted(self: nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
        seen.append(x.is_contiguous() and x.dtype == torch.float32 and self.num_groups == GROUPS)
        return forward(self, x)

    monkeypatch.setattr(nn.GroupNorm, "forward", noted)
    for dtype in (torch.float32, torch.bfloat16):
        network = picture_model().denoiser
        assert isinstance(network, UNetDenoiser)
        network.serve_in(dtype).trunk([MODEL.sub_tokenizer.masked(L)], [torch.tensor([0])])
    assert len(seen) > 20
    assert all(seen)
