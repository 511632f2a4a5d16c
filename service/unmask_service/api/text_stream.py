"""The text of a sample that is revealed in any order, as clients of other servers read it: piece by piece."""

from collections.abc import Iterable
from itertools import takewhile

from unmask_diffusion import Outline, Plan, Sample, answer_of, find_stop, text_of

from unmask_service.api.schemas import Token

# stands for a token of which not all digits are known
MASKED = "░"
# what a decoder makes of bytes that are only a part of a character
PARTIAL = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """One sample as a growing text: what is known without a gap from the left, complete in UTF-8.

    A possible beginning of a stop string is held back until it is certain.
    """

    def __init__(self, model: Outline, plan: Plan, index: int) -> None:
        self._model, self._plan, self._index = model, plan, index
        self._tokens = dict(plan.given)  # by position: the given tokens, and those that are revealed
        self.token_ids: list[int] = []  # of the answer, those that are known without a gap
        self._text = ""  # of `token_ids`, without the last ones if these end within a character
        self._decoded = self._context = 0  # numbers of tokens: in `_text`, and of these before the last piece
        self._sent = 0  # characters that are out
        self.sample: Sample | None = None  # the answer, as soon as it is certain

    def take(self, tokens: Iterable[Token] = ()) -> str:
        """Take in completed tokens; return the text that can be sent on now."""
        self._tokens |= {position: token for position, token, _ in tokens}
        behind = self._plan.generated[len(self.token_ids) :]
        found = [self._tokens[position] for position in takewhile(self._tokens.__contains__, behind)]
        self.token_ids += found
        self._decode()
        stop = self._plan.request.stop
        ends = len(found) == len(behind) or any(token in self._model.end_token_ids for token in found)
        if ends or find_stop(self._text[max(0, self._sent) :], stop) is not None:
            self.sample = answer_of(self._model, self._plan, self._index, self.token_ids)
        if self.sample is not None:
            return self._send(self.sample.text or "")
        return self._send(self._text[: len(self._text) - held_back(self._text, stop)])

    def canvas_text(self) -> str:
        """The whole answer as text, with a placeholder for each token that is not known."""
        if self.sample is not None:
            return self.sample.text or ""
        parts: list[str] = []
        run: list[int] = []
        for position in self._plan.generated:
            if position in self._tokens:
                run.append(self._tokens[position])
            else:
                parts += [text_of(self._model, run) or "", MASKED]
                run = []
        return "".join([*parts, text_of(self._model, run) or ""])

    def _decode(self) -> None:
        """Add the text of new tokens, decoded behind the ones before them: a single token may lose its space."""
        before = text_of(self._model, self.token_ids[self._context : self._decoded])
        after = text_of(self._model, self.token_ids[self._context :])
        if before is None or after is None or len(after) <= len(before) or after.endswith(PARTIAL):
            return
        self._text += after[len(before) :]
        self._context, self._decoded = self._decoded, len(self.token_ids)

    def _send(self, text: str) -> str:
        piece = text[self._sent :]
        self._sent = max(self._sent, len(text))
        return piece


def held_back(text: str, stop: Iterable[str]) -> int:
    """How many characters at the end of a text may be the beginning of a stop string."""
    return max((length for each in stop for length in range(1, len(each)) if text.endswith(each[:length])), default=0)
