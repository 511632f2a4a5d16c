"""The text of a sample that is revealed in any order, as clients of other servers read it: piece by piece."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from itertools import takewhile

from tokenizers.decoders import DecodeStream
from unmask_diffusion import Outline, Plan, Sample, answer_of, decode_stream, find_stop, text_of

from unmask_service.api.schemas import Token

# stands for a token of which not all digits are known
MASKED = "░"


class TextStream:
    """One sample as a growing text: what is known without a gap from the left, complete in UTF-8.

    A possible beginning of a stop string is held back until it is certain.
    """

    def __init__(self, model: Outline, plan: Plan, index: int) -> None:
        self._model, self._plan, self._index = model, plan, index
        self._continues = plan.continues_text(model)
        self._tokens = dict(plan.given)  # by position: the given tokens, and those that are revealed
        again, digits = plan.schedules[index].steps.again, model.sub_tokenizer.sub_tokens_per_token
        self._passing = Counter(each // digits for each in again.masks) if again else Counter[int]()  # masks to come
        self.token_ids: list[int] = []  # of the answer, those that are known without a gap
        self._stream: DecodeStream | None = None  # from the first token on
        self._text = ""  # of `token_ids`, without the last ones if these end within a character
        self._ends: list[int] = []  # for each of them, where its piece of the text ends
        self._sent = self._told = 0  # characters that are out, and tokens of which these are all
        self.sample: Sample | None = None  # the answer, as soon as it is certain

    def take(self, tokens: Iterable[Token] = (), masked: Iterable[tuple[int, int]] = ()) -> str:
        """Take in completed tokens, and sub-tokens that are masked again; return the text that can be sent on now."""
        self._tokens |= {position: token for position, token, _ in tokens}
        for position, _ in masked:
            self._tokens.pop(position, None)
            self._passing[position] -= 1
        behind = self._plan.generated[len(self.token_ids) :]
        found = [self._tokens[position] for position in takewhile(self._stays, behind)]
        self.token_ids += found
        self._decode(found)
        stop = self._plan.request.stop
        ends = len(found) == len(behind) or any(token in self._model.end_token_ids for token in found)
        if ends or find_stop(self._text[max(0, self._sent) :], stop) is not None:
            self.sample = answer_of(self._model, self._plan, self._index, self.token_ids)
        if self.sample is not None:
            return self._send(self.sample.text or "")
        return self._send(self._text[: len(self._text) - held_back(self._text, stop)])

    def _stays(self, position: int) -> bool:
        """Whether a token is known for good."""
        return position in self._tokens and not self._passing[position]

    def tokens_sent(self) -> list[tuple[int, int, str]]:
        """The tokens whose text is out since the last call: for each the position, the offset and the piece of text."""
        ends, text = self._ends, self._text
        if self.sample is not None:
            ends, text = self._ends[: len(self.sample.token_ids)], self.sample.text or ""
            ends[-1:] = [len(text)] * len(ends[-1:])
        starts, before = [0, *ends], self._told
        self._told = len(ends) if self.sample is not None else bisect_right(ends, self._sent)
        return [
            (self._plan.generated[number], starts[number], text[starts[number] : ends[number]])
            for number in range(before, self._told)
        ]

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
                parts += [self._text_of(run, parts), MASKED]
                run = []
        return "".join([*parts, self._text_of(run, parts)])

    def _text_of(self, run: list[int], before: list[str]) -> str:
        return text_of(self._model, run, bool(before) or self._continues) or ""

    def _decode(self, tokens: Iterable[int]) -> None:
        """Add what new tokens add to the text: alone, a token may lose its space, or be a part of a character."""
        tokenizer = self._model.tokenizer
        if tokenizer is None:
            self._ends += [0 for _ in tokens]
            return
        for token in tokens:
            self._stream = self._stream or decode_stream(tokenizer, token, self._continues)
            self._text += self._stream.step(tokenizer, token) or ""
            self._ends.append(len(self._text))

    def _send(self, text: str) -> str:
        piece = text[self._sent :]
        self._sent = max(self._sent, len(text))
        return piece


def held_back(text: str, stop: Iterable[str]) -> int:
    """How many characters at the end of a text may be the beginning of a stop string."""
    return max((length for each in stop for length in range(1, len(each)) if text.endswith(each[:length])), default=0)
