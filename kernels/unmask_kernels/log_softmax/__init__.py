"""Joint logits → log-probabilities over the classes that agree with the revealed digits."""

from unmask_kernels.log_softmax.reference import consistent_log_softmax

__all__ = ["consistent_log_softmax"]
