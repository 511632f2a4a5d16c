"""A request's tokens are its own: hundreds of random mixes through the engine, in any company and order."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from unmask_diffusion import GenerationRequest, Model, make_plan, read_sample, replay, sample
from unmask_model_store import open_bundle
from unmask_service.broker import Finished, Job, MemoryBroker, Revealed
from unmask_service.engine import Engine, Speculation
from unmask_service.forecast import Capacity, Pace
from unmask_service.metrics import Metrics

from tests.helpers import DenoiserAround, ToyModel

Request = dict[str, Any]
Tokens = list[tuple[int, ...]]

SPECULATIONS: tuple[Speculation, ...] = ("off", "auto", 4)
# mixes a bundle, of 2 … 6 requests each
MIXES = {"writer": 40, "table": 140, "chain": 25}
LONGEST = {"writer": 6, "table": 2, "chain": 4}
TOKENS_PER_TICK = {"writer": 24, "table": 12, "chain": 192}


def random_request(rng: random.Random, model: Model, longest: int) -> Request:
    """Anything that `POST /generate` takes, short."""
    classes = model.denoiser.vocabulary_size
    tokens = rng.randint(1, longest)
    request: Request = {"seed": rng.randrange(2**63), "n": rng.choice((1, 1, 1, 3))}
    if rng.random() < 0.3 and classes > 4:
        request["canvas"] = [rng.choice((None, None, rng.randrange(classes))) for _ in range(tokens)]
    elif rng.random() < 0.5 and tokens > 1:
        request |= {"prompt": [rng.randrange(min(classes, 3))], "max_tokens": tokens - 1}
    else:
        request["max_tokens"] = tokens
    request["temperature"] = rng.choice((1.0, 1.0, 0.0, 0.5, 3.0))
    request |= rng.choice(({}, {}, {"top_k": rng.randint(1, classes)}, {"top_p": rng.uniform(0.1, 1)}))
    steps = rng.randint(1, 2 * tokens)
    remasking = {"name": "remasking", "steps": steps, "rate": rng.random(), "schedule": rng.choice(("cap", "loop"))}
    bounded = {"name": rng.choice(("entropy_bounded", "threshold")), "bound": rng.random()}
    request["sampler"] = rng.choice(({}, {"steps": steps}, {"name": "ancestral", "steps": steps}, remasking, bounded))
    return request


async def through_the_engine(
    model: Model, requests: Sequence[Request], tokens_per_tick: int, speculation: Speculation
) -> list[Tokens]:
    """The tokens of requests that are all there when the engine begins."""
    broker = MemoryBroker(max_requests=len(requests))
    capacity = Capacity(tokens_per_tick, Pace(1.0, 1e-3, 1e-3))
    engine = Engine(model, broker, Metrics("toy"), capacity, speculation=speculation)
    plans = [make_plan(model, GenerationRequest.model_validate(request)) for request in requests]
    for number, plan in enumerate(plans):
        await broker.submit(Job(str(number), plan, 0.0))
    running = asyncio.create_task(engine.run())
    answers = []
    async with asyncio.timeout(60):
        for number, plan in enumerate(plans):
            log = [entry async for _, entry in broker.follow(str(number))]
            assert isinstance(log[-1], Finished), (requests[number], log[-1])
            states = replay(model, plan, [entry.reveal for entry in log if isinstance(entry, Revealed)])
            answers.append([read_sample(model, plan, i, state).token_ids for i, state in enumerate(states)])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return answers


@pytest.mark.parametrize("name", list(MIXES))
def test_tokens_are_the_same_alone_and_in_any_company_order_and_budget(bundles: Path, name: str) -> None:
    model = open_bundle(bundles / name)
    rng = random.Random(name)

    async def one_mix() -> None:
        requests = [random_request(rng, model, LONGEST[name]) for _ in range(rng.randint(2, 6))]
        alone = [[each.token_ids for each in sample(model, **request)] for request in requests]
        order, budget = rng.choice((1, -1)), TOKENS_PER_TICK[name] // rng.choice((1, 2))
        speculation = rng.choice(SPECULATIONS)
        found = await through_the_engine(model, requests[::order], budget, speculation)
        assert found[::order] == alone, (order, budget, speculation, requests)

    async def all_mixes() -> None:
        for _ in range(MIXES[name]):
            await one_mix()

    asyncio.run(all_mixes())


class Sociable(DenoiserAround):
    """A denoiser whose logits depend on how many canvases there are, by a hair."""

    def trunk(self, canvases: Any, rows: Any) -> Any:  # noqa: ANN401
        return super().trunk(canvases, rows) * (1 + 1e-2 * len(canvases))


def test_a_denoiser_that_minds_its_company_is_found_out(bundles: Path) -> None:
    """The property above can fail."""
    bundle = open_bundle(bundles / "writer")
    model = ToyModel(Sociable(bundle.denoiser), bundle.sub_tokenizer, full_canvas=False)
    requests: list[Request] = [{"max_tokens": 20, "seed": seed, "n": 4} for seed in range(3)]
    alone = [[each.token_ids for each in sample(model, **request)] for request in requests]
    assert asyncio.run(through_the_engine(model, requests, 1000, "off")) != alone
