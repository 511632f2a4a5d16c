"""Scores in the engine: they share its evaluations with generations, and go on from their logs."""

import asyncio

import pytest
from unmask_diffusion import Readout, ScorePlan, ScoreRequest, Tally, make_score_plan, read_score, sample, score
from unmask_service.broker import Failed, Finished, Job, LogEntry, Revealed, Scored, Started
from unmask_service.engine.tasks import EVALUATIONS_AN_ENTRY, MOST_LANES

from tests.helpers import ToyModel
from tests.service.test_engine import PRIME, House, NanFor

TEXT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9]


def score_plan(model: ToyModel = PRIME, **fields: object) -> ScorePlan:
    return make_score_plan(model, ScoreRequest.model_validate({"input": TEXT, "seed": 4} | fields))


async def submit(house: House, name: str, **fields: object) -> ScorePlan:
    plan = score_plan(house.model, **fields)
    await house.broker.submit(Job(name, plan, submitted_at=0.0))
    return plan


def readouts(log: list[LogEntry]) -> list[Readout]:
    return [entry.readout for entry in log if isinstance(entry, Scored)]


def tally_of(plan: ScorePlan, log: list[LogEntry]) -> Tally:
    tally = Tally(plan)
    for readout in readouts(log):
        tally.note(readout)
    return tally


def test_a_score_and_generations_share_evaluations_and_do_not_notice() -> None:
    async def run() -> None:
        house = House()
        plan = await submit(house, "score", per_token=True)
        await house.submit("generation", max_tokens=5, n=2, seed=1)
        async with house.running():
            log, others = await asyncio.gather(house.log("score"), house.log("generation"))
        assert isinstance(log[-1], Finished)
        assert read_score(house.model, tally_of(plan, log)) == score(PRIME, input=TEXT, seed=4, per_token=True)
        assert {5, 12} <= set(house.network.evaluations[1]), "both in one evaluation"
        alone = sample(PRIME, max_tokens=5, n=2, seed=1)
        tokens = [[0] * 10 for _ in alone]
        for entry in others:
            if isinstance(entry, Revealed):
                for position, j, digit in entry.reveal.sub_tokens:
                    tokens[entry.reveal.sample][2 * position + j] = digit
        codes = PRIME.sub_tokenizer.codes
        assert tokens == [codes[list(each.token_ids)].flatten().tolist() for each in alone]
        assert house.count("unmask_scored_tokens_total") == len(TEXT)
        assert house.count("unmask_network_evaluations_total") == plan.network_evaluations + 20

    asyncio.run(run())


def test_a_score_that_is_alone_fills_the_tick() -> None:
    """As many lanes as have room: nothing has to be guessed."""

    async def run() -> None:
        house = House(tokens_per_tick=200)
        plan = await submit(house, "score")
        async with house.running():
            await house.log("score")
        widths = [len(canvases) for canvases in house.network.evaluations]
        assert max(widths) == 200 // 12
        assert len(widths) < plan.network_evaluations / 10

    asyncio.run(run())


def test_beside_generations_scores_take_no_more_of_a_tick_than_these() -> None:
    async def run() -> None:
        house = House(tokens_per_tick=1000)
        for name in ("one", "other"):
            await submit(house, name, budget=10_000)
        await house.submit("generation", max_tokens=12, n=4, seed=1)
        async with house.running():
            await house.log("generation")
            beside = house.network.evaluations[: 24 + 1]
            await asyncio.gather(house.log("one"), house.log("other"))
        assert {len(canvases) for canvases in beside[1:-1]} == {4 + 4}
        assert max(map(len, house.network.evaluations)) == 1000 // 12

    asyncio.run(run())


def test_a_short_score_does_not_take_a_tick_beyond_measure() -> None:
    """A place costs something outside of the network too."""

    async def run() -> None:
        house = House(tokens_per_tick=10**6)
        await submit(house, "score", input=[1], budget=4096)
        async with house.running():
            await house.log("score")
        assert max(map(len, house.network.evaluations)) == MOST_LANES

    asyncio.run(run())


def test_the_log_tells_every_so_many_evaluations() -> None:
    async def run() -> None:
        house = House(tokens_per_tick=24)
        plan = await submit(house, "score", input=TEXT[:12])
        async with house.running():
            log = await house.log("score")
        told = readouts(log)
        assert sum(each.evaluations for each in told) == plan.network_evaluations == 8 * 24
        assert len(told) == 8 * -(-24 // EVALUATIONS_AN_ENTRY)

    asyncio.run(run())


@pytest.mark.parametrize("estimator", ["orders", "integral"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_a_score_goes_on_from_any_part_of_its_log(estimator: str, share: float) -> None:
    """Whatever had been read and not been told is read again; the sums are the same to the last bit."""

    async def run() -> None:
        house = House(tokens_per_tick=60)
        plan = await submit(house, "score", estimator=estimator, per_token=True, published_integrand=True)
        async with house.running():
            log = await house.log("score")
        part = log[: 1 + int(share * len(readouts(log)))]
        successor = House(tokens_per_tick=130)
        await successor.broker.submit(Job("score", plan, submitted_at=0.0))
        assert await successor.broker.claim_now()
        assert not await successor.broker.append([("score", entry) for entry in part])
        await successor.broker.release(blameless=True)
        async with successor.running():
            whole = await successor.log("score")
        assert whole[: len(part)] == part
        assert isinstance(whole[len(part)], Started)
        assert sum(map(len, successor.network.evaluations)) < sum(map(len, house.network.evaluations)) or share == 0
        assert read_score(PRIME, tally_of(plan, whole)) == read_score(PRIME, tally_of(plan, log))

    asyncio.run(run())


def test_invalid_logits_end_a_score_alone() -> None:
    async def run() -> None:
        house = House()
        house.network.inner = NanFor(house.network.inner, length=3)
        await submit(house, "cursed", input=TEXT[:3])
        plan = await submit(house, "other")
        async with house.running():
            cursed, other = await asyncio.gather(house.log("cursed"), house.log("other"))
        assert isinstance(cursed[-1], Failed)
        assert cursed[-1].reason == "engine"
        assert read_score(PRIME, tally_of(plan, other)) == score(PRIME, input=TEXT, seed=4)

    asyncio.run(run())


def test_a_score_whose_evaluation_raises_ends_alone() -> None:
    async def run() -> None:
        house = House()
        house.network.poison = int(PRIME.sub_tokenizer.codes[7, 0])
        # the first token is given, so every canvas of it begins with the poisonous digit; no other canvas can
        await submit(house, "poison", input=[1, 2], prompt=[7])
        plan = await submit(house, "other", input=[2, 1, 1])
        async with house.running():
            poison, other = await asyncio.gather(house.log("poison"), house.log("other"))
        assert isinstance(poison[-1], Failed)
        assert isinstance(other[-1], Finished)
        assert tally_of(plan, other).enough

    asyncio.run(run())


def test_it_ends_as_soon_as_enough_is_known() -> None:
    async def run() -> None:
        house = House(tokens_per_tick=24)
        plan = await submit(house, "score", input=[1, 2], budget=4000, standard_error_per_token=1.0)
        async with house.running():
            log = await house.log("score")
        assert isinstance(log[-1], Finished)
        tally = tally_of(plan, log)
        assert tally.enough
        assert tally.evaluations < plan.network_evaluations / 10

    asyncio.run(run())
