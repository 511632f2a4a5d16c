"""The serving loop in one process, without HTTP: requests in flight, with and without speculation."""

import asyncio
import time
from collections.abc import Iterator

import torch
from unmask_diffusion import GenerationRequest, Model, NetworkShape, make_plan
from unmask_service.broker import Finished, Job, MemoryBroker
from unmask_service.engine import Engine, Speculation, measured_capacity
from unmask_service.metrics import Metrics

from benchmarks.gpu.part import Options, Result, run_part
from benchmarks.models import OFFICIAL, random_model

SMALL = NetworkShape(32, 101, 2, 11, hidden_size=48, blocks=2, heads=4)
IN_FLIGHT = (1, 16, 64)
TOKENS = 64  # of an answer, whose canvas is the model's length
TOKENS_A_TICK = 65_536


async def serve(model: Model, speculation: Speculation, in_flight: int, requests: int, tokens: int) -> list[float]:
    """Keep some requests in flight; return the seconds of each, and last those of all."""
    broker = MemoryBroker(max_requests=in_flight + 1)
    capacity = measured_capacity(model, TOKENS_A_TICK)
    engine = Engine(model, broker, Metrics("random"), capacity, speculation=speculation)
    running = asyncio.create_task(engine.run())
    seconds: list[float] = []

    async def client(first: int) -> None:
        for number in range(first, requests, in_flight):
            begun = time.perf_counter()
            request = GenerationRequest(prompt=[0], max_tokens=tokens, seed=number)
            await broker.submit(Job(str(number), make_plan(model, request), submitted_at=broker.now()))
            async for _, entry in broker.follow(str(number)):
                last = entry
            if not isinstance(last, Finished):
                raise RuntimeError(f"a request has not finished: {last}")
            seconds.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    try:
        await asyncio.gather(*(client(first) for first in range(in_flight)))
        return [*seconds, time.perf_counter() - begun]
    finally:
        running.cancel()
        await asyncio.wait([running])


def results(options: Options) -> Iterator[Result]:
    model = random_model(SMALL if options.small else OFFICIAL, torch.bfloat16 if options.gpu else torch.float32)
    model.denoiser.to(options.device)
    tokens = 4 if options.small else TOKENS
    for in_flight in (1, 2) if options.small else IN_FLIGHT:
        median: dict[str, float] = {}
        for speculation in ("off", "auto"):
            requests = max(2, in_flight)
            *each, total = asyncio.run(serve(model, speculation, in_flight, requests, tokens))
            median[speculation] = sorted(each)[len(each) // 2]
            name = f"{in_flight} in flight, speculation {speculation}"
            yield Result(f"{name}: a request of {tokens} tokens", 1000 * median[speculation], "ms")
            yield Result(f"{name}: tokens", requests * tokens / total, "1/s")
        yield Result(f"{in_flight} in flight: speculation is faster by", median["off"] / median["auto"], "times")


if __name__ == "__main__":
    run_part(results)
