"""The operations that the sampler spends its time on, each beside the plain reference that it must equal."""

from unmask_kernels.activation import FUSES_GELU, gelu_tanh, linear_gelu_tanh, silu
from unmask_kernels.attention import attention
from unmask_kernels.categorical import draw, draw_from_logits
from unmask_kernels.confidence import Measure, confidence
from unmask_kernels.consistency import agrees
from unmask_kernels.dispatch import CPU_HAS_BFLOAT16
from unmask_kernels.draws import (
    DrawError,
    Draws,
    InvalidLogitsError,
    NoCandidateError,
    Offsets,
    restricted,
    with_offsets,
)
from unmask_kernels.head import draw_from_hidden
from unmask_kernels.linear import fixed_tile_linear
from unmask_kernels.log_softmax import consistent_log_normaliser, consistent_log_softmax
from unmask_kernels.norm import rms_norm
from unmask_kernels.philox import Purpose, random_uniform, random_words
from unmask_kernels.transfer import to_device

__all__ = [
    "CPU_HAS_BFLOAT16",
    "FUSES_GELU",
    "DrawError",
    "Draws",
    "InvalidLogitsError",
    "Measure",
    "NoCandidateError",
    "Offsets",
    "Purpose",
    "agrees",
    "attention",
    "confidence",
    "consistent_log_normaliser",
    "consistent_log_softmax",
    "draw",
    "draw_from_hidden",
    "draw_from_logits",
    "fixed_tile_linear",
    "gelu_tanh",
    "linear_gelu_tanh",
    "random_uniform",
    "random_words",
    "restricted",
    "rms_norm",
    "silu",
    "to_device",
    "with_offsets",
]
