"""The errors of a draw. They carry the classes of the rows that could be drawn."""

from torch import Tensor


class DrawError(ValueError):
    """No class could be drawn for some rows."""

    def __init__(self, no_candidate: list[int], invalid: list[int], classes: Tensor) -> None:
        self.no_candidate = no_candidate  # rows without a consistent class of positive probability
        self.invalid = invalid  # rows with NaN or +inf among the logits of their consistent classes
        self.rows = sorted([*no_candidate, *invalid])
        self.classes = classes  # int64 [N], the classes of the other rows; -1 in `rows`
        parts = []
        if invalid:
            parts.append(f"NaN or +inf among the logits of rows {_listed(invalid)}")
        if no_candidate:
            parts.append(f"no class is possible in rows {_listed(no_candidate)}")
        super().__init__("; ".join(parts))


class NoCandidateError(DrawError):
    """Some rows have no candidate, and no row is invalid."""


class InvalidLogitsError(DrawError):
    """At least one row has NaN or +inf; other rows may have no candidate."""


def _listed(rows: list[int], limit: int = 10) -> str:
    listed = ", ".join(map(str, rows[:limit]))
    return listed if len(rows) <= limit else f"{listed}, … ({len(rows)} rows)"
