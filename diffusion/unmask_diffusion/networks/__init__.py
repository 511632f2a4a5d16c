"""The networks behind `unmask_diffusion.Denoiser`: MDLM-Prime, llama-shaped ones, a U-Net, two exact distributions."""

from unmask_diffusion.networks.exact import MarkovDenoiser, TableDenoiser
from unmask_diffusion.networks.heads import IndependentHead, JointHead, Parameterization
from unmask_diffusion.networks.llama import DigitEmbeddings, LlamaDenoiser, LlamaShape, TableDtype
from unmask_diffusion.networks.prime import LAYER_NORM_EPSILON, ROTARY_BASE, Block, NetworkShape, PrimeDenoiser
from unmask_diffusion.networks.unet import UNetDenoiser, UNetShape

__all__ = [
    "LAYER_NORM_EPSILON",
    "ROTARY_BASE",
    "Block",
    "DigitEmbeddings",
    "IndependentHead",
    "JointHead",
    "LlamaDenoiser",
    "LlamaShape",
    "MarkovDenoiser",
    "NetworkShape",
    "Parameterization",
    "PrimeDenoiser",
    "TableDenoiser",
    "TableDtype",
    "UNetDenoiser",
    "UNetShape",
]
