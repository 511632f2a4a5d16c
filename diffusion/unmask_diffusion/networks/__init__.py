"""The networks, each behind `unmask_diffusion.Denoiser`: MDLM-Prime, and two distributions that are known exactly."""

from unmask_diffusion.networks.exact import MarkovDenoiser, TableDenoiser
from unmask_diffusion.networks.heads import IndependentHead, JointHead, Parameterization
from unmask_diffusion.networks.prime import LAYER_NORM_EPSILON, ROTARY_BASE, Block, NetworkShape, PrimeDenoiser

__all__ = [
    "LAYER_NORM_EPSILON",
    "ROTARY_BASE",
    "Block",
    "IndependentHead",
    "JointHead",
    "MarkovDenoiser",
    "NetworkShape",
    "Parameterization",
    "PrimeDenoiser",
    "TableDenoiser",
]
