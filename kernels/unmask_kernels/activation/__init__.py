"""GELU that gives an element the same bits wherever it lies."""

from unmask_kernels.activation.reference import gelu_tanh

__all__ = ["gelu_tanh"]
