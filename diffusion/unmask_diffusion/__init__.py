"""The mathematics of masked diffusion language models. Pure torch: no HTTP, no Redis, no files, no clock."""

from unmask_diffusion.log import Candidates, LogEntry, Readout, Reveal, SampleError
from unmask_diffusion.model import Denoiser, Extent, Model, Outline
from unmask_diffusion.networks import MarkovDenoiser, NetworkShape, PrimeDenoiser, TableDenoiser
from unmask_diffusion.painter import Colour, Painter
from unmask_diffusion.plan import Plan, Sample, cut, initial_state, make_plan, plan_on_canvas, read_sample, replay
from unmask_diffusion.request import (
    MAX_BUDGET,
    MAX_SAMPLES,
    MAX_STEPS,
    MAX_TEMPERATURE,
    Clock,
    GenerationRequest,
    GenerationSettings,
    RequestError,
    Sampler,
    ScoreRequest,
)
from unmask_diffusion.sampler import ActiveSample, run, sample
from unmask_diffusion.schedule import Schedule, Step, Steps, ancestral, event_of, first_hitting, hitting_times
from unmask_diffusion.scoring import (
    ActivePass,
    Estimate,
    Score,
    ScorePlan,
    Tally,
    TokenNats,
    make_score_plan,
    read_score,
    run_score,
    score,
)
from unmask_diffusion.speculation import accept
from unmask_diffusion.sub_tokens import SubTokenizer, smallest_base
from unmask_diffusion.untrained import untrained_warnings
from unmask_diffusion.work import Outcome, Phase, SamplingError, State, Work, advance, evaluate

__all__ = [
    "MAX_BUDGET",
    "MAX_SAMPLES",
    "MAX_STEPS",
    "MAX_TEMPERATURE",
    "ActivePass",
    "ActiveSample",
    "Candidates",
    "Clock",
    "Colour",
    "Denoiser",
    "Estimate",
    "Extent",
    "GenerationRequest",
    "GenerationSettings",
    "LogEntry",
    "MarkovDenoiser",
    "Model",
    "NetworkShape",
    "Outcome",
    "Outline",
    "Painter",
    "Phase",
    "Plan",
    "PrimeDenoiser",
    "Readout",
    "RequestError",
    "Reveal",
    "Sample",
    "SampleError",
    "Sampler",
    "SamplingError",
    "Schedule",
    "Score",
    "ScorePlan",
    "ScoreRequest",
    "State",
    "Step",
    "Steps",
    "SubTokenizer",
    "TableDenoiser",
    "Tally",
    "TokenNats",
    "Work",
    "accept",
    "advance",
    "ancestral",
    "cut",
    "evaluate",
    "event_of",
    "first_hitting",
    "hitting_times",
    "initial_state",
    "make_plan",
    "make_score_plan",
    "plan_on_canvas",
    "read_sample",
    "read_score",
    "replay",
    "run",
    "run_score",
    "sample",
    "score",
    "smallest_base",
    "untrained_warnings",
]
