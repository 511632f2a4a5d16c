"""Whether speculation changes a token: logs of random requests with it and without, alone and with other samples."""

import random
from dataclasses import dataclass
from itertools import repeat

from rich.progress import track
from unmask_diffusion import ActiveSample, GenerationRequest, Model, Plan, make_plan

from benchmarks.speculation.measures import run_samples, samples_of

MOST_LANES = 9
PLACES = 24


@dataclass(frozen=True)
class Identity:
    """Logs that differ from those that the sampler writes without speculation, each sample alone."""

    requests: int  # compared
    logs: int  # of their samples
    reveals: int  # of all logs
    alone: int  # logs that differ with speculation
    company: int  # logs that differ with speculation where up to `PLACES` samples share a round


def random_plan(model: Model, chance: random.Random) -> Plan:
    """Any sampler, temperature, filters and length (short ones more often); often with given tokens."""
    length = round(model.denoiser.length ** min(chance.random(), chance.random()))
    length = model.denoiser.length if model.full_canvas else length
    sub_tokens = length * model.sub_tokenizer.sub_tokens_per_token
    samplers: list[dict[str, object]] = [
        {},
        {},
        {"steps": chance.randint(1, sub_tokens)},
        {"name": "ancestral", "steps": chance.randint(1, 2 * sub_tokens)},
    ]
    fields = {
        "n": chance.choice([1, 1, 2]),
        "seed": chance.getrandbits(53),
        "temperature": chance.choice([0.0, 0.3, 1.0, 1.0, 2.0]),
        "top_k": chance.choice([0, 0, 5, 50]),
        "top_p": chance.choice([1.0, 1.0, 0.9, 0.5]),
        "sampler": chance.choice(samplers),
    }
    return make_plan(model, GenerationRequest.model_validate(fields | _given(model, length, chance)))


def _given(model: Model, length: int, chance: random.Random) -> dict[str, object]:
    """No given tokens, a prompt and a suffix, or given tokens anywhere; at least one token is left to generate."""

    def tokens(count: int) -> list[int]:
        return [chance.randrange(model.denoiser.vocabulary_size) for _ in range(count)]

    kind = chance.choice(["nothing", "nothing", "prompt", "canvas"])
    if kind == "nothing":
        return {"max_tokens": length}
    known = chance.randrange(length)
    if kind == "prompt":
        before = chance.randint(0, known)
        return {"prompt": tokens(before), "suffix": tokens(known - before), "max_tokens": length - known}
    canvas = [*tokens(known), *[None] * (length - known)]
    return {"canvas": chance.sample(canvas, length)}


def compare(model: Model, requests: int, seed: int) -> Identity:
    """Sample random requests three times; the lanes of every sample in every round are random."""
    chance = random.Random(seed)
    plans = [random_plan(model, chance) for _ in range(requests)]

    def start() -> list[ActiveSample]:
        return [sample for plan in plans for sample in samples_of(model, plan)]

    any_lanes = iter(lambda: chance.randint(1, MOST_LANES), 0)

    without = [run_samples(model, [each], repeat(1))[0] for each in track(start(), description="speculation off")]
    alone = [run_samples(model, [each], any_lanes)[0] for each in track(start(), description="speculation, alone")]
    company = run_samples(model, start(), any_lanes, PLACES)
    wrong = [sum(off.log != on.log for off, on in zip(without, runs, strict=True)) for runs in (alone, company)]
    return Identity(requests, len(without), sum(len(each.log) for each in without), *wrong)
