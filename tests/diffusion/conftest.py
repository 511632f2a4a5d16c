"""The device that Triton's kernels are tested on, for the sampler over them."""

from tests.kernels.conftest import device

__all__ = ["device"]
