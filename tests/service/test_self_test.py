"""The start-up self-test: passes for what is served, notices arithmetic that depends on company."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from torch import Tensor
from unmask_service.engine import BrokenPromiseError, self_test

from tests.helpers import ToyModel, prime_model, table_model


class Sociable:
    """A denoiser whose features depend on how many canvases there are."""

    def __init__(self, inner: ToyModel) -> None:
        self.inner = inner.denoiser
        self.length = self.inner.length
        self.vocabulary_size = self.inner.vocabulary_size

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        return self.inner.trunk(canvases, rows) * (1 + 1e-6 * len(canvases))

    def head(self, features: Tensor) -> Tensor:
        return self.inner.head(features)

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        return self.inner.joint_logits(sub_tokens)


def test_this_machine_keeps_the_promise() -> None:
    self_test(prime_model(length=40))
    self_test(table_model(classes=3, length=2, digits=2))


def test_a_broken_promise_is_noticed() -> None:
    model = prime_model(length=40)
    with pytest.raises(BrokenPromiseError, match="among others"):
        self_test(replace(model, denoiser=Sociable(model)))
