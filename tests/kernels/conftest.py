"""Where Triton kernels are tested: on a GPU, or else in Triton's interpreter on tensors in memory."""

import os

import pytest
import torch
from unmask_kernels import dispatch


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The GPU; without one the CPU, and all operations dispatch as they do on a GPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("UNMASK_TEST_GPU"):
        pytest.skip("there is no GPU: torch.cuda.is_available() is false")
    monkeypatch.setattr(dispatch, "on_cpu", lambda _: False)
    monkeypatch.setattr(dispatch, "on_gpu", lambda _: True)
    return torch.device("cpu")
