"""What a draw raises. Rows that can be drawn are drawn all the same, and travel with the error."""

from torch import Tensor


class DrawError(ValueError):
    """Some rows name no class.

    Attributes:
        no_candidate: rows whose every consistent class has probability 0 (or that have no such class).
        invalid: rows with NaN or +inf among the logits of their consistent classes.
        rows: both, ascending.
        classes: int64 [N], the classes of the other rows; -1 in these.
    """

    def __init__(self, no_candidate: list[int], invalid: list[int], classes: Tensor) -> None:
        self.no_candidate = no_candidate
        self.invalid = invalid
        self.rows = sorted([*no_candidate, *invalid])
        self.classes = classes
        super().__init__("; ".join(_describe(no_candidate, invalid)))


class NoCandidateError(DrawError):
    """Rows without a candidate, and no invalid ones."""


class InvalidLogitsError(DrawError):
    """At least one row with NaN or +inf; there may be rows without a candidate too."""


def _describe(no_candidate: list[int], invalid: list[int]) -> list[str]:
    parts = []
    if invalid:
        parts.append(f"NaN or +inf among the logits of rows {_listed(invalid)}")
    if no_candidate:
        parts.append(f"no class is possible in rows {_listed(no_candidate)}")
    return parts


def _listed(rows: list[int], limit: int = 10) -> str:
    shown = ", ".join(map(str, rows[:limit]))
    return shown if len(rows) <= limit else f"{shown}, … ({len(rows)} rows)"


__all__ = ["DrawError", "InvalidLogitsError", "NoCandidateError"]
