"""The mathematics of masked diffusion language models. Pure torch: no HTTP, no Redis, no files, no clock."""

from unmask_diffusion.denoiser import Denoiser, NetworkShape, PrimeDenoiser
from unmask_diffusion.exact import MarkovDenoiser, TableDenoiser
from unmask_diffusion.plan import (
    Model,
    Plan,
    Reveal,
    Sample,
    apply,
    initial_state,
    make_plan,
    read_sample,
    replay,
)
from unmask_diffusion.request import MAX_SAMPLES, GenerationRequest, RequestError, Sampler
from unmask_diffusion.sampler import ActiveSample, SampleError, SamplingError, evaluate, run, sample
from unmask_diffusion.schedule import Schedule, ancestral, event_of, first_hitting, hitting_times
from unmask_diffusion.sub_tokens import SubTokenizer, smallest_base

__all__ = [
    "MAX_SAMPLES",
    "ActiveSample",
    "Denoiser",
    "GenerationRequest",
    "MarkovDenoiser",
    "Model",
    "NetworkShape",
    "Plan",
    "PrimeDenoiser",
    "RequestError",
    "Reveal",
    "Sample",
    "SampleError",
    "Sampler",
    "SamplingError",
    "Schedule",
    "SubTokenizer",
    "TableDenoiser",
    "ancestral",
    "apply",
    "evaluate",
    "event_of",
    "first_hitting",
    "hitting_times",
    "initial_state",
    "make_plan",
    "read_sample",
    "replay",
    "run",
    "sample",
    "smallest_base",
]
