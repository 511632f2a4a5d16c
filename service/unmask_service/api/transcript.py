"""Reading a log: the state that it has led to, and the tokens that each entry completes."""

from collections.abc import Iterable

from unmask_diffusion import Model, Plan, Reveal, Sample, apply, initial_state, read_sample, replay

Token = tuple[int, int, str | None]


class Transcript:
    """Every sample of a generation as its log has told it so far.

    Attributes:
        states: one canvas [length, l] a sample, the mask id where nothing is known.
    """

    def __init__(self, model: Model, plan: Plan) -> None:
        self.model = model
        self.plan = plan
        first = initial_state(model, plan)
        self.states = [first.clone() for _ in plan.schedules]

    def given(self) -> list[Token]:
        """The tokens that the request gives: (position, token id, text)."""
        return [(position, token, self._text_of(token)) for position, token in self.plan.given]

    def reveal(self, entry: Reveal) -> list[Token]:
        """Write one entry of the log; return the tokens that it completes."""
        digits = self.states[entry.sample]
        apply(digits, entry)
        positions = sorted({position for position, _, _ in entry.sub_tokens})
        touched = digits[positions]
        complete = (touched != self.model.sub_tokenizer.mask_id).all(-1)
        ids: list[int] = self.model.sub_tokenizer.decode(touched[complete]).tolist()
        done = [position for position, whole in zip(positions, complete.tolist(), strict=True) if whole]
        return [(position, token, self._text_of(token)) for position, token in zip(done, ids, strict=True)]

    def samples(self) -> list[Sample]:
        """The answer, once the log has ended."""
        return [read_sample(self.model, self.plan, index, digits) for index, digits in enumerate(self.states)]

    def _text_of(self, token: int) -> str | None:
        """One token's text; a token may be a part of a UTF-8 character."""
        tokenizer = self.model.tokenizer
        return None if tokenizer is None else tokenizer.decode([token], skip_special_tokens=False)


def read_log(model: Model, plan: Plan, log: Iterable[Reveal]) -> list[Sample]:
    """The answer from a whole log."""
    return [read_sample(model, plan, index, digits) for index, digits in enumerate(replay(model, plan, log))]
