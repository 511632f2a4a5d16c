"""How long a network evaluation takes, learned from those that were.

An evaluation costs something in itself, something a token of its canvases (the trunk) and something a row of logits
(head and draw). That is a model of three numbers; they are corrected after every evaluation, so that what is
believed follows the machine: other processes, other lengths, other batches.
"""

from dataclasses import dataclass

# the share of an evaluation's surprise that is believed: a change of pace is learned in some ten evaluations
LEARNING_RATE = 0.1
# one evaluation that the machine held up is no reason to believe more than a doubling
LARGEST_SURPRISE = 1.0
# no part is believed to cost less than this share: what is nothing could never be corrected by a factor
SMALLEST_SHARE = 0.01


@dataclass(frozen=True)
class Pace:
    """The cost of a network evaluation in seconds, its work around it included. All parts are positive.

    Attributes:
        evaluation: in itself.
        token: a token of the canvases that share it.
        row: a row of logits that is drawn from.
    """

    evaluation: float
    token: float
    row: float

    def seconds(self, tokens: float, rows: float) -> float:
        """How long an evaluation of canvases of so many tokens takes that draws so many rows."""
        return self.evaluation + self.token * tokens + self.row * rows

    def after(self, tokens: float, rows: float, seconds: float) -> "Pace":
        """What to believe after an evaluation that took so long.

        A step of normalised least mean squares, in relative terms: the surprise is shared out by how much each part
        stands for, and every part changes by a factor, so that none becomes negative.
        """
        parts = (self.evaluation, self.token * tokens, self.row * rows)
        expected = sum(parts)
        surprise = min(seconds / expected - 1, LARGEST_SURPRISE)
        step = LEARNING_RATE * surprise * expected / sum(part * part for part in parts)
        evaluation, token, row = (1 + step * part for part in parts)
        return Pace(self.evaluation * evaluation, self.token * token, self.row * row)


def first_pace(one: float, wide: float, many: float, tokens: int, canvases: int, rows: int) -> Pace:
    """The pace that three evaluations show.

    Args:
        one: seconds of an evaluation of one canvas that draws one row.
        wide: the same, `rows` rows drawn.
        many: of `canvases` such canvases, a row each.
        tokens: of one canvas.
        canvases: at least 1; where no more than one fits, a canvas is taken to cost half of its evaluation.
        rows: at least 2, or the row's cost is not known and believed small.
    """
    least = SMALLEST_SHARE * one
    row = max((wide - one) / (rows - 1), least / rows) if rows > 1 else least
    rest = max(one - row, least)
    more = canvases - 1
    canvas = max((many - one) / more - row if more else rest / 2, least)
    return Pace(evaluation=max(rest - canvas, least), token=canvas / tokens, row=row)
