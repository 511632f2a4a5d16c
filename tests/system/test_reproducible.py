"""The same request with the same seed gives the same tokens, whatever else the server is doing."""

import random
from pathlib import Path

import pytest
from unmask_diffusion import sample
from unmask_model_store import open_bundle

from tests.helpers_server import Body, Server, generate_together, token_ids


def varied(count: int, classes: int, length: int, full: bool) -> list[Body]:
    chance = random.Random(length)
    bodies: list[Body] = []
    for seed in range(count):
        canvas = [chance.choice([None, None, None, chance.randrange(classes)]) for _ in range(length)]
        gap: Body = {"canvas": canvas if full else canvas[: chance.randint(1, length)]}
        filters: Body = chance.choice([{}, {}, {"temperature": 0.6}, {"top_k": 3}, {"top_p": 0.7}, {"temperature": 0}])
        sampler: Body = chance.choice([{}, {"steps": 4}, {"name": "ancestral", "steps": 9}])
        bodies.append(gap | filters | {"seed": seed, "n": chance.choice([1, 1, 2, 4]), "sampler": sampler})
    return bodies


@pytest.mark.parametrize("name", ["writer", "chain"])
def test_alone_and_among_32_others(name: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(name)
    bodies = varied(33, 260, 24, full=False) if name == "writer" else varied(33, 4, 64, full=True)
    alone = [token_ids(server.generate(**body)) for body in bodies]
    for shuffle in range(2):
        order = random.Random(shuffle).sample(range(33), 33)
        together = generate_together(server.url, [bodies[i] for i in order])
        assert [token_ids(answer) for answer in together] == [alone[i] for i in order]


def test_a_stream_among_others_gives_the_same_tokens(writer: Server) -> None:
    body: Body = {"prompt": " the", "max_tokens": 9, "n": 3, "seed": 5}
    alone = token_ids(writer.generate(**body))
    assert token_ids(writer.stream(**body).done) == alone


def test_the_same_after_a_restart_and_without_a_server(bundles: Path, writer: Server) -> None:
    body: Body = {"prompt": " the", "max_tokens": 9, "n": 3, "seed": 5}
    answer = writer.generate(**body)
    with Server(bundles / "writer") as another:
        again = another.until_ready().generate(**body)
    assert again["fingerprint"] == answer["fingerprint"]
    assert again["choices"] == answer["choices"]
    library = sample(open_bundle(bundles / "writer", dtype="auto"), **body)
    assert [list(each.token_ids) for each in library] == token_ids(answer)
