"""Real processes, really killed: nothing is lost, nothing comes twice, and no token changes."""

import asyncio
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from unmask_diffusion import Sampler, sample
from unmask_model_store import default_model_dir, find_bundle, open_bundle

from tests.helpers_cluster import Cluster, Follower, check_logs, counted, follow_all, until, until_seen
from tests.helpers_redis import Redis
from tests.helpers_server import Body, Server, crowd, generate_together, token_ids, wait_for

KILLS = 3
# of a sample
EVALUATIONS = 48
# of a score's answer, all but when it came
SCORE = ("nats", "standard_error", "estimator", "windows", "tokens", "seed", "token_nats", "fingerprint")


def bodies(count: int, samples: int = 2) -> list[Body]:
    """Requests that reveal `EVALUATIONS` groups a sample; half of them with filters, half with log-probabilities."""
    every: Body = {"n": samples, "sampler": {"steps": EVALUATIONS}}
    return [
        every | {"seed": seed, "top_k": 3 * (seed % 2), "logprobs": 2 if seed // 2 % 2 else None}
        for seed in range(count)
    ]


def check_tokens(followers: Sequence[Follower], chain: Server, asked: Sequence[Body]) -> None:
    """Everybody has the tokens and numbers of a calm server's answer, and was told of each sub-token once."""
    expected = [answer["choices"] for answer in generate_together(chain.url, asked)]
    assert [follower.stream.done["choices"] for follower in followers] == expected
    for follower, body in zip(followers, asked, strict=True):
        assert follower.unmasks == body["n"] * EVALUATIONS
        tokens = [[each[i] for i in range(len(each))] for each in follower.stream.tokens()]
        assert tokens == token_ids(follower.stream.done)
        assert all(digit is not None for canvas in follower.stream.canvases() for place in canvas for digit in place)


def check_idle(cluster: Cluster) -> None:
    """Nothing is left over, for any API process."""
    for api in cluster.apis:
        api.until_idle()
        assert api.metric("unmask_network_evaluations_at_hand") == 0


# --- workers ---------------------------------------------------------------------------------------------------------


def test_workers_that_are_killed(cluster: Cluster, chain: Server) -> None:
    """At moments drawn at random within the work; a fresh worker takes each one's place."""
    asked, chance = bodies(16), random.Random(1)
    whole = len(asked) * 2 * EVALUATIONS
    cluster.start_worker()
    cluster.until_ready()

    async def kill(followers: list[Follower]) -> None:
        for number in range(KILLS):
            await until_seen(followers, int(whole * (number + chance.uniform(0.2, 0.8)) / (KILLS + 1)))
            victim = chance.choice([each for each in cluster.workers if counted(each, "unmask_ticks_total")])
            victim.kill()
            cluster.replace(victim)

    followers = follow_all(cluster.urls, asked, kill)
    check_tokens(followers, chain, asked)
    check_logs(cluster.urls, followers)
    assert all(follower.connections == 1 for follower in followers), "clients need not notice"
    assert cluster.counted("unmask_takeovers_total") > 0
    check_idle(cluster)
    cluster.dismiss(cluster.workers[0])


def test_scores_of_a_worker_that_is_killed(cluster: Cluster, chain: Server) -> None:
    """What it had told is not read again, what it had not is; the numbers are those of a calm run, to the last bit."""
    # more than one worker takes at a time
    canvases = [[(seed * position) % 4 for position in range(64)] for seed in range(1, 10)]
    asked: list[Body] = [{"input": ids, "seed": 3, "per_token": True} for ids in canvases]
    victim, *others = cluster.workers
    before = sum(counted(worker, "unmask_takeovers_total") for worker in others)
    done = counted(victim, "unmask_network_evaluations_total")

    async def run() -> list[Body]:
        async with crowd(cluster.urls[0]) as client:
            answers = [asyncio.create_task(client.post("/score", json=body)) for body in asked]
            await until(lambda: counted(victim, "unmask_network_evaluations_total") > done + 100)
            victim.kill()
            return [(await answer).json() for answer in answers]

    found = asyncio.run(run())
    assert sum(counted(worker, "unmask_takeovers_total") for worker in others) > before
    for body, answer in zip(asked, found, strict=True):
        calm = chain.http.post("/score", json=body).json()
        assert {name: answer[name] for name in SCORE} == {name: calm[name] for name in SCORE}
    check_idle(cluster)


def test_a_worker_that_stands_still_past_its_lease(cluster: Cluster, chain: Server) -> None:
    """Others take its generations over; what it has to say when it wakes is refused, and it works on."""
    asked = bodies(16)
    sleeper, *others = cluster.workers
    refused = counted(sleeper, "unmask_late_writes_refused_total")

    def taken() -> float:
        return sum(counted(worker, "unmask_takeovers_total") for worker in others)

    before = taken()

    async def pause(followers: list[Follower]) -> None:
        await until_seen(followers, 100)
        sleeper.pause()
        try:
            await until(lambda: taken() > before)
        finally:
            sleeper.resume()

    followers = follow_all(cluster.urls, asked, pause)
    check_tokens(followers, chain, asked)
    check_logs(cluster.urls, followers)
    assert counted(sleeper, "unmask_late_writes_refused_total") > refused
    check_idle(cluster)
    done = counted(sleeper, "unmask_network_evaluations_total")
    generate_together(cluster.urls[0], bodies(8))
    assert counted(sleeper, "unmask_network_evaluations_total") > done, "it works on"


def test_a_worker_that_is_asked_to_end_hands_over(cluster: Cluster, chain: Server) -> None:
    asked = bodies(12)
    leaver = cluster.start_worker("--drain-seconds", "0.2")
    leaver.until_ready()

    async def terminate(_: list[Follower]) -> None:
        await until(lambda: counted(leaver, "unmask_ticks_total") > 5)
        leaver.terminate()

    followers = follow_all(cluster.urls, asked, terminate)
    assert leaver.process.wait(60) == 0, leaver.output()
    assert "Traceback" not in leaver.output()
    cluster.dismiss(leaver)
    check_tokens(followers, chain, asked)
    check_logs(cluster.urls, followers)
    check_idle(cluster)


def test_pictures_whose_workers_are_killed(redis: Redis) -> None:
    """Two of three workers die among 32 pictures: logs, digits and files are those of each picture alone."""
    bundle = open_bundle(find_bundle("faces", default_model_dir()))
    sampler = {"steps": 24}
    asked: list[Body] = [{"seed": seed, "sampler": sampler, "output": "png", "scale": 2} for seed in range(32)]
    with Cluster(
        bundle.path, redis.url, redis_prefix="pictures", tokens_per_tick=8 * bundle.denoiser.length
    ) as cluster:
        (api,) = cluster.start(apis=1, workers=3).apis

        async def kill(followers: list[Follower]) -> None:
            for share in (4, 2):
                await until_seen(followers, len(asked) * sampler["steps"] // share)
                victim = next(each for each in cluster.workers if counted(each, "unmask_ticks_total"))
                victim.kill()
                cluster.dismiss(victim)

        among = follow_all(cluster.urls, asked, kill)
        check_logs(cluster.urls, among)
        assert cluster.counted("unmask_takeovers_total") > 0
        for seed in (0, 7, 31):
            (alone,) = follow_all(cluster.urls, [asked[seed]])
            assert alone.stream.unmasks == among[seed].stream.unmasks
            assert alone.stream.done["choices"] == among[seed].stream.done["choices"]
            (drawn,) = sample(bundle, seed=seed, sampler=Sampler(steps=sampler["steps"]))
            assert token_ids(alone.stream.done) == [list(drawn.token_ids)]
            for file in ("image.png?step=11&scale=3", "image.png", "film.png?frames=12"):
                one, other = (api.http.get(f"/generate/{each.id}/{file}") for each in (alone, among[seed]))
                assert (one.status_code, one.headers["content-type"]) == (200, "image/png"), one.text
                assert one.content == other.content


# A worker that dies as soon as it makes a sample of one seed, whatever it was about to do with it.
FRAGILE = """
import os, signal, sys
from unmask_diffusion import ActiveSample
made = ActiveSample.__init__
def make(self, *args, **kwargs):
    made(self, *args, **kwargs)
    if self.plan.seed == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
ActiveSample.__init__ = make
from unmask_service.cli import main
sys.argv[0] = "unmask"
main()
"""
POISON = 666


def test_a_plan_that_kills_its_workers(bundles: Path, redis: Redis, chain: Server) -> None:
    """Three die of it, one after the other, each with all that waits at hand; the fourth ends it with an error.

    Those that waited with it are none the worse, whether they came before it or after.
    """
    program = (sys.executable, "-c", FRAGILE.replace("POISON", str(POISON)))
    with Cluster(bundles / "chain", redis.url, redis_prefix="poisoned") as cluster:
        cluster.start_api()
        workers = [cluster.start_worker(program=program) for _ in range(4)]
        cluster.until_ready()
        for worker in workers:
            worker.pause()

        async def one_after_the_other(followers: list[Follower]) -> None:
            while not all(follower.events for follower in followers):
                await asyncio.sleep(0.01)
            for worker in workers:
                worker.resume()
                await until(lambda worker=worker: worker.process.poll() is not None or followers[2].ended)  # type: ignore[misc]

        asked = [body | {"seed": seed} for body, seed in zip(bodies(5), (1, 2, POISON, 3, 4), strict=True)]
        followers = follow_all(cluster.urls, asked, one_after_the_other)
        error = followers.pop(2).stream.last
        assert (error.name, error.data["error"]["code"]) == ("error", "poison")
        check_tokens(followers, chain, [body for body in asked if body["seed"] != POISON])
        assert [worker.process.poll() for worker in workers] == [-signal.SIGKILL] * 3 + [None]
        check_idle(cluster)
        assert token_ids(cluster.apis[0].generate(seed=1)) == token_ids(chain.generate(seed=1))


# --- API processes ---------------------------------------------------------------------------------------------------


def test_an_api_process_that_is_killed_with_open_streams(cluster: Cluster, chain: Server) -> None:
    asked = bodies(20, samples=1)
    victim = cluster.apis[0]

    async def kill(followers: list[Follower]) -> None:
        while not all(follower.events for follower in followers):
            await asyncio.sleep(0.01)
        victim.kill()

    followers = follow_all(cluster.urls, asked, kill)
    assert all(follower.connections >= 2 for follower in followers)
    check_tokens(followers, chain, asked)
    cluster.replace(victim)
    cluster.until_ready()
    check_logs(cluster.urls[1:], followers)
    check_idle(cluster)


# --- Redis -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_redis_goes_away_and_comes_back(cluster: Cluster, redis: Redis, chain: Server, fault: str) -> None:
    """Killed, it has all that it acknowledged on its disk. Paused, it may still do what its clients have given up."""
    asked = bodies(10)
    pids = [process.process.pid for process in (*cluster.apis, *cluster.workers)]
    generations: list[str] = []

    async def fail(followers: list[Follower]) -> None:
        await until_seen(followers, len(asked) * 2 * EVALUATIONS // 3)
        for body in asked[:3]:
            response = cluster.apis[0].http.post("/generate", json=body | {"detach": True})
            generations.append(response.json()["id"])
        redis.kill() if fault == "killed" else redis.pause()
        await until(lambda: cluster.apis[0].status_of("/ready") == 503)
        redis.start() if fault == "killed" else redis.resume()
        await until(lambda: all(api.status_of("/ready") == 200 for api in cluster.apis))

    followers = follow_all(cluster.urls, asked, fail)
    check_tokens(followers, chain, asked)
    check_logs(cluster.urls, followers)
    api = cluster.apis[1]
    api.until_idle()
    answers = [api.http.get(f"/generate/{generation}").json() for generation in generations]
    assert [token_ids(answer) for answer in answers] == [token_ids(follower.stream.done) for follower in followers[:3]]
    check_idle(cluster)
    assert [process.process.pid for process in (*cluster.apis, *cluster.workers)] == pids
    assert all(process.process.poll() is None for process in (*cluster.apis, *cluster.workers))


def test_a_redis_that_has_lost_everything(bundles: Path, chain: Server) -> None:
    """Nothing can be done for what ran; whoever asks is told, and what comes next is served as if nothing had been."""
    with Redis(persistent=False) as redis, Cluster(bundles / "chain", redis.url) as cluster:
        cluster.start(apis=1, workers=1)
        api = cluster.apis[0]
        generation = api.http.post("/generate", json={"n": 64, "detach": True}).json()["id"]
        wait_for(lambda: api.metric("unmask_requests_running") == 1, 60)
        redis.kill()
        wait_for(lambda: api.status_of("/ready") == 503, 60)
        redis.start()
        cluster.until_ready()
        assert api.http.get(f"/generate/{generation}").status_code == 404
        asked = bodies(3)
        check_tokens(follow_all(cluster.urls, asked), chain, asked)
        check_idle(cluster)
