"""Warnings about given tokens that training has never met."""

import pytest
from unmask_diffusion import untrained_warnings

from tests.helpers import ToyModel, plan_for, prime_model


@pytest.fixture(scope="module")
def model() -> ToyModel:
    return prime_model(length=12)


# ids 0 … 3 are trained, the others are not
TRAINED = bytes([1] * 4 + [0] * 100)


@pytest.mark.parametrize(
    ("given", "untrained"),
    [
        ([4], None),  # one token is no pattern
        ([4, 4], 2),
        ([4, 0], None),
        ([4, 4, 0, 0, 0, 0, 0], 2),
        ([4, 4, 0, 0, 0, 0, 0, 0], None),  # a quarter, not more
        ([0, 1, 2, 3], None),
    ],
)
def test_more_than_a_quarter_and_at_least_two(model: ToyModel, given: list[int], untrained: int | None) -> None:
    for fields, name in (
        ({"prompt": given}, "prompt"),
        ({"suffix": given}, "suffix"),
        ({"canvas": [None, *given, None]}, "canvas"),
        ({"canvas": [*given]}, "canvas"),
    ):
        text = f"{untrained} of {len(given)} {name} tokens are outside what this model was trained on"
        assert untrained_warnings(plan_for(model, **fields), TRAINED) == ([] if untrained is None else [text])


def test_each_part_is_counted_by_itself(model: ToyModel) -> None:
    plan = plan_for(model, prompt=[4, 4], suffix=[5, 0, 5])
    assert [each.partition(" tokens")[0] for each in untrained_warnings(plan, TRAINED)] == [
        "2 of 2 prompt",
        "2 of 3 suffix",
    ]
    assert not untrained_warnings(plan, None)
    assert not untrained_warnings(plan_for(model), TRAINED)
