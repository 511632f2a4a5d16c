import torch
from unmask_kernels import Draws, draw
from unmask_kernels.categorical import draw_reference, keep_likely


def kept(scores: list[float], top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> list[int]:
    """The columns that stay, of a row and of the same row beside others and padded."""
    row = torch.tensor([scores], dtype=torch.float64)
    row -= row.max()
    one, share = torch.tensor([top_k]), torch.tensor([top_p], dtype=torch.float64)
    least = torch.tensor([min_p], dtype=torch.float64)
    alone = keep_likely(row, one, share, least)
    if not min_p:
        assert torch.equal(alone, keep_likely(row, one, share))
    wide = torch.cat([row, torch.full((1, 5), -torch.inf)], 1).repeat(3, 1)
    wide[1] = torch.arange(wide.shape[1]) - wide.shape[1] + 1
    among = keep_likely(wide, one.repeat(3), share.repeat(3), torch.tensor([0.5, 0.0, min_p]))
    assert torch.equal(alone[0], among[2, : row.shape[1]])
    return alone[0].nonzero()[:, 0].tolist()


def logs(*probabilities: float) -> list[float]:
    return torch.tensor(probabilities, dtype=torch.float64).log().tolist()


def test_top_k_keeps_exactly_k_and_prefers_the_lower_of_equals() -> None:
    assert kept([1, 3, 3, 3, 2], top_k=2) == [1, 2]
    assert kept([0] * 100, top_k=7) == list(range(7))
    assert kept([1, 2], top_k=9) == [0, 1]


def test_top_p_keeps_the_crossing_class() -> None:
    assert kept(logs(0.1, 0.5, 0.4), top_p=0.6) == [1, 2]
    assert kept(logs(0.1, 0.5, 0.4), top_p=0.4) == [1]
    assert kept(logs(0.1, 0.5, 0.4), top_p=0.95) == [0, 1, 2]


def test_a_share_that_is_reached_exactly_is_enough() -> None:
    assert kept([0, 0, 0, 0], top_p=0.5) == [0, 1]
    assert kept([0, 0, 0, 0], top_p=0.75) == [0, 1, 2]


def test_one_class_always_stays() -> None:
    assert kept(logs(0.3, 0.7), top_p=0.0) == [1]
    assert kept([5.0], top_k=1, top_p=0.1) == [0]


def test_top_p_is_of_what_top_k_leaves() -> None:
    """0.4 and 0.3 become 4/7 and 3/7: the first alone is less than 0.6 but 0.55 is reached by it."""
    assert kept(logs(0.4, 0.3, 0.2, 0.1), top_k=2, top_p=0.55) == [0]
    assert kept(logs(0.4, 0.3, 0.2, 0.1), top_k=2, top_p=0.6) == [0, 1]
    assert kept(logs(0.4, 0.3, 0.2, 0.1), top_p=0.55) == [0, 1]


def test_off_keeps_even_what_underflows() -> None:
    assert kept([0, -800, -5000]) == [0, 1, 2]
    assert kept([0, -800, -5000], top_k=2) == [0, 1]


def test_min_p_drops_what_is_far_below_the_likeliest() -> None:
    assert kept(logs(0.5, 0.2, 0.3), min_p=0.5) == [0, 2]
    assert kept(logs(0.5, 0.25, 0.25), min_p=0.5) == [0, 1, 2], "as probable as that is enough"
    assert kept([2, 3, 3], min_p=1.0) == [1, 2]
    assert kept(logs(0.5, 0.3, 0.2), min_p=0.5, top_k=1) == [0]


def test_top_p_is_of_what_min_p_leaves() -> None:
    """0.4 and 0.3 become 0.57 and 0.43."""
    assert kept(logs(0.4, 0.3, 0.2, 0.1), min_p=0.6, top_p=0.55) == [0]
    assert kept(logs(0.4, 0.3, 0.2, 0.1), top_p=0.55) == [0, 1]


def test_draws_with_min_p() -> None:
    """Every class that is left is drawn, and no other; a row without it draws as if the others had none."""
    rows = 400
    logits = torch.tensor(logs(0.5, 0.1, 0.3, 0.1)).repeat(rows, 1)
    codes, revealed = torch.arange(4)[:, None], torch.full((rows, 1), 4)
    numbers, temperature = torch.arange(rows), 0.5
    least = torch.where(numbers % 2 == 0, 0.3, 0.0)  # after temperature 0.5, 0.3 is 0.36 of 0.5
    found = draw(logits, revealed, codes, numbers, numbers, temperature, min_p=least)
    assert set(found[::2].tolist()) == {0, 2}
    plain = draw(logits, revealed, codes, numbers, numbers, temperature)
    assert torch.equal(found[1::2], plain[1::2])
    assert set(plain.tolist()) == {0, 1, 2, 3}
    one = torch.ones(rows, dtype=torch.float64)
    draws = Draws(revealed, numbers, numbers, one / 2, numbers * 0, one, min_p=least.double())
    assert torch.equal(draw_reference(logits, codes, draws), found)
