"""Many clients, and clients that go away."""

import asyncio

import httpx

from tests.helpers_server import (
    Body,
    OpenStream,
    Server,
    open_stream,
    post_together,
    token_ids,
    wait_for,
    with_open_streams,
)

PLACES = 256

# 16 canvases of 2048 evaluations each: nobody waits for their end
ENDLESS: Body = {"max_tokens": 1024, "n": 16}


def running(server: Server) -> float:
    return server.metric("unmask_requests_running")


def waiting(server: Server) -> float:
    return server.metric("unmask_requests_waiting")


def gone(server: Server) -> None:
    """Everything has left long before it could have ended by itself (minutes of evaluations)."""
    wait_for(lambda: running(server) == waiting(server) == 0, 60)


def test_a_full_queue_refuses_and_says_when_to_come_again(long_chain: Server) -> None:
    async def then(client: httpx.AsyncClient, streams: list[OpenStream]) -> None:
        assert len(streams) == PLACES
        for stream in (False, True):
            refusal = await client.post("/generate", json=ENDLESS | {"stream": stream})
            assert refusal.status_code == 429, refusal.text
            assert int(refusal.headers["retry-after"]) >= 1
            error = refusal.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert str(PLACES) in error["message"]
        assert (await client.post("/generate", json={"n": 0})).status_code in (400, 422)
        for path in ("/health", "/ready", "/v1/models"):
            assert (await client.get(path)).status_code == 200
        assert await asyncio.to_thread(running, long_chain) + await asyncio.to_thread(waiting, long_chain) == PLACES
        await streams[0].leave()  # one goes, and its place is free
        await asyncio.to_thread(wait_for, lambda: running(long_chain) + waiting(long_chain) < PLACES, 60)
        await (await open_stream(client, ENDLESS)).leave()

    with_open_streams(long_chain.url, [ENDLESS | {"n": 4}] * PLACES, then)
    gone(long_chain)
    assert len(token_ids(long_chain.generate(max_tokens=3, seed=1))[0]) == 3


def test_every_request_gets_an_answer(chain: Server) -> None:
    bodies: list[Body] = [{"prompt": [i % 4], "seed": i, "max_tokens": 12} for i in range(320)]
    responses = post_together(chain.url, bodies, at_once=320)
    answered = [response for response in responses if response.status_code == 200]
    refused = [response for response in responses if response.status_code == 429]
    assert len(answered) + len(refused) == 320
    assert len(answered) >= PLACES
    assert all(int(response.headers["retry-after"]) >= 1 for response in refused)
    assert all(len(token_ids(response.json())[0]) == 12 for response in answered)
    chain.until_idle()


def test_a_stream_that_is_left_leaves_the_batch(long_chain: Server) -> None:
    async def then(client: httpx.AsyncClient, streams: list[OpenStream]) -> None:
        assert client
        assert len(streams) == 3
        await asyncio.to_thread(wait_for, lambda: running(long_chain) + waiting(long_chain) == 3, 60)

    with_open_streams(long_chain.url, [ENDLESS] * 3, then)
    gone(long_chain)


def test_a_client_that_waits_for_a_whole_answer_and_leaves(long_chain: Server) -> None:
    async def leave() -> None:
        async with httpx.AsyncClient(base_url=long_chain.url, timeout=60) as client:
            asking = asyncio.create_task(client.post("/generate", json=ENDLESS))
            await asyncio.to_thread(wait_for, lambda: running(long_chain) == 1, 60)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    asyncio.run(leave())
    gone(long_chain)


def test_those_who_stay_do_not_notice_those_who_leave(long_chain: Server) -> None:
    body: Body = {"max_tokens": 30, "n": 2, "seed": 8, "sampler": {"steps": 12}}
    expected = token_ids(long_chain.generate(**body))
    found: list[list[list[int]]] = []

    async def then(client: httpx.AsyncClient, streams: list[OpenStream]) -> None:
        asking = asyncio.create_task(client.post("/generate", json=body))
        for stream in streams:
            await asyncio.sleep(0.05)
            await stream.leave()
        found.append(token_ids((await asking).json()))

    with_open_streams(long_chain.url, [ENDLESS | {"seed": seed} for seed in range(6)], then)
    assert found == [expected]
    gone(long_chain)
