"""Image models over HTTP."""

from tests.helpers_server import Body, Server

MASKED: list[int | None] = [None, None]


def test_digits_with_holes_are_completed_in_any_model(chain: Server) -> None:
    sub_tokens: list[list[int | None]] = [[0, None], MASKED, [1, 0], [None, 2], [None, None]]
    stream = chain.stream(sub_tokens=sub_tokens, seed=5, n=2)
    assert stream.start["sub_tokens"] == [[0, 0, 0], [3, 1, 2]]
    assert stream.start["canvas"] == [[[2, 3, None]]] * 2
    assert stream.start["masked"] == 2 * 6
    canvases = stream.canvases()
    for sample, canvas in enumerate(canvases):
        tokens = stream.done["choices"][sample]["token_ids"]
        for position, token in enumerate(tokens):
            digits = [token // 3, token % 3]
            for j, digit in enumerate(digits):
                asked = sub_tokens[position][j]
                assert asked in (None, digit)
                assert canvas[position][j] == (digit if asked is None else None)
    completed = stream.tokens()
    assert [completed[i][p] for i in range(2) for p in range(5)] == [
        token for choice in stream.done["choices"] for token in choice["token_ids"]
    ]
    assert chain.generate(sub_tokens=sub_tokens, seed=5, n=2)["choices"] == stream.done["choices"]


def test_digits_that_name_no_token_are_refused(chain: Server) -> None:
    for sub_tokens, complaint in (
        ([[1, 1]], "sub_tokens.0 is [1, 1]: no token has these digits"),
        ([[0, 0], [2, None]], "sub_tokens.1 is [2, None]: no token has these digits"),
        ([[0, 3]], "sub_tokens.0 holds digit 3; the model's are 0 … 2"),
        ([[0]], "sub_tokens.0 has 1 digit"),
        ([], "sub_tokens: "),
        ([[0, -1]], "sub_tokens.0.1: "),
    ):
        response = chain.http.post("/generate", json={"sub_tokens": sub_tokens})
        error: Body = response.json()["error"]
        assert (response.status_code, complaint in error["message"]) == (422, True), error
        assert error["param"].startswith("sub_tokens")
