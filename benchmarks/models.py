"""What is evaluated: a random model of the official size, and samples at chosen places of their schedules."""

from dataclasses import dataclass

import torch
from unmask_diffusion import (
    ActiveSample,
    GenerationRequest,
    Model,
    NetworkShape,
    Plan,
    PrimeDenoiser,
    SubTokenizer,
    initial_state,
    make_plan,
)
from unmask_model_store.bundle import SkipInitialisation

OFFICIAL = NetworkShape(
    length=1024, vocabulary_size=50257, sub_tokens_per_token=4, base=15, hidden_size=768, blocks=12, heads=12
)


@dataclass(frozen=True)
class NetworkModel:
    """A network and its codes, without text. Satisfies `unmask_diffusion.Model`."""

    denoiser: PrimeDenoiser
    sub_tokenizer: SubTokenizer
    tokenizer: None = None
    end_token_id: None = None
    full_canvas: bool = True


def random_model(shape: NetworkShape, dtype: torch.dtype) -> NetworkModel:
    """A model of random weights, the same for every dtype but for rounding; logits are normal, with a deviation of 1.

    No weight is ever in memory in another dtype than its own, but for one layer at a time.
    """
    with SkipInitialisation():
        network = PrimeDenoiser(shape).requires_grad_(False).eval().serve_in(dtype)
    chance = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            parameter.fill_(name.endswith("weight"))
        elif parameter.dtype == torch.float32:
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=chance)
        else:
            parameter.copy_(torch.empty(parameter.shape).normal_(std=parameter.shape[-1] ** -0.5, generator=chance))
    codes = SubTokenizer.from_base(shape.vocabulary_size, shape.sub_tokens_per_token, shape.base)
    return NetworkModel(network, codes)


def plan_of(model: Model, samples: int, seed: int, steps: int | None = None) -> Plan:
    """A plan for full, empty canvases: exact, or ancestral with `steps`."""
    sampler = {"name": "ancestral" if steps else "first_hitting", "steps": steps}
    fields = {"n": samples, "max_tokens": model.denoiser.length, "seed": seed, "sampler": sampler}
    return make_plan(model, GenerationRequest.model_validate(fields))


def on_its_way(model: Model, plan: Plan, index: int, step: int) -> ActiveSample:
    """A sample `step` groups into its schedule, what is revealed being any tokens."""
    chance = torch.Generator().manual_seed(index * 1_000_003 + step)
    tokens = torch.randint(model.denoiser.vocabulary_size, (plan.length,), generator=chance)
    sub_tokens = [each for group in plan.schedules[index].groups[:step] for each in group]
    digits = initial_state(model, plan).flatten()
    digits[sub_tokens] = model.sub_tokenizer.encode(tokens).flatten()[sub_tokens]
    return ActiveSample(plan, index, digits.view(plan.length, -1), step)


def spread_out(model: Model, plan: Plan, shift: float) -> list[ActiveSample]:
    """The plan's samples, evenly spread over the schedule; shift in [0, 1) moves all of them on."""
    samples, steps = len(plan.schedules), len(plan.schedules[0].groups)
    return [on_its_way(model, plan, i, int((i + shift) / samples * steps)) for i in range(samples)]


def half_revealed(model: Model) -> list[ActiveSample]:
    """Samples at the half of their schedule, by how many digits the token already shows which is revealed next.

    One for 0 digits, one for 1, … one for l - 1; in a random half of all sub-tokens these numbers are binomial.
    """
    digits = model.sub_tokenizer.sub_tokens_per_token
    found: dict[int, ActiveSample] = {}
    seed = 0
    while len(found) < digits:
        seed += 1
        plan = plan_of(model, 1, seed)
        sample = on_its_way(model, plan, 0, len(plan.schedules[0].groups) // 2)
        shown = sample.digits[sample.next_group[0] // digits] != model.sub_tokenizer.mask_id
        found.setdefault(int(shown.sum()), sample)
    return [found[count] for count in range(digits)]
