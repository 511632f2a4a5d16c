"""The same request with the same seed gives the same tokens, whatever else the server is doing."""

import random

import pytest

from tests.helpers_server import Body, Server, generate_together, token_ids


def varied(count: int, classes: int, length: int, full: bool) -> list[Body]:
    chance = random.Random(length)
    bodies: list[Body] = []
    for seed in range(count):
        canvas = [chance.choice([None, None, None, chance.randrange(classes)]) for _ in range(length)]
        gap: Body = {"canvas": canvas if full else canvas[: chance.randint(1, length)]}
        filters: Body = chance.choice([{}, {}, {"temperature": 0.6}, {"top_k": 3}, {"top_p": 0.7}, {"temperature": 0}])
        sampler: Body = chance.choice([{}, {"steps": 4}, {"name": "ancestral", "steps": 9}])
        bodies.append(gap | filters | {"seed": seed, "n": chance.choice([1, 1, 2]), "sampler": sampler})
    return bodies


@pytest.mark.parametrize("name", ["writer", "chain"])
def test_alone_and_among_32_others(name: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(name)
    bodies = varied(33, 260, 24, full=False) if name == "writer" else varied(33, 4, 64, full=True)
    alone = [token_ids(server.generate(**body)) for body in bodies[:11]]
    together: list[list[list[list[int]]]] = []
    for shuffle in range(2):
        order = random.Random(shuffle).sample(range(33), 33)
        answers = generate_together(server.url, [bodies[i] for i in order])
        together.append([token_ids(answers[order.index(i)]) for i in range(33)])
    assert together[0][:11] == alone
    assert together[0] == together[1]


def test_a_stream_among_others_gives_the_same_tokens(writer: Server) -> None:
    body: Body = {"prompt": " the", "max_tokens": 9, "n": 3, "seed": 5}
    alone = token_ids(writer.generate(**body))
    assert token_ids(writer.stream(**body).done) == alone
