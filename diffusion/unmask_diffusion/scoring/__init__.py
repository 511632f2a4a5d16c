"""The likelihood of a text: a bound, by random orders or by an integral over the mask rate.

    -log p(x) ≤ E over orders of the sum of -log p(sub-token | those before it), each the *marginal* of a sub-token

For the exact first-hitting sampler, whose orders are uniform, this is the order-agnostic bound. With block_length the
orders are that sampler's, uniform within each block, and the bound is for what it draws. On a model whose
conditionals are consistent with one joint distribution every order gives -log p(x) itself.
"""

from unmask_diffusion.scoring.estimate import Estimate, Score, Tally, TokenNats, read_score, run_score, score
from unmask_diffusion.scoring.passes import ActivePass
from unmask_diffusion.scoring.plan import ScorePlan, make_score_plan

__all__ = [
    "ActivePass",
    "Estimate",
    "Score",
    "ScorePlan",
    "Tally",
    "TokenNats",
    "make_score_plan",
    "read_score",
    "run_score",
    "score",
]
