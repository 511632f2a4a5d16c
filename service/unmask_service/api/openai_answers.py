"""The answers of the OpenAI-compatible endpoints, whole or in chunks, made from the logs of a call's jobs."""

import asyncio
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field
from sse_starlette import ServerSentEvent
from unmask_diffusion import text_of
from unmask_diffusion.log import LogProbabilities

from unmask_service.api.admission import call_of
from unmask_service.api.errors import JobError, error_answer
from unmask_service.api.followers import AnyFollower, Generation, Scoring
from unmask_service.api.openai_bodies import ChatBody, CompletionBody, OpenAIBody
from unmask_service.api.openai_logprobs import (
    TokenLogProb,
    for_chat,
    for_completion,
    of_generated,
    of_prompt,
    with_texts,
)
from unmask_service.api.schemas import Choice, Message, Usage
from unmask_service.api.text_stream import TextStream
from unmask_service.broker import LogEntry, Revealed

logger = logging.getLogger("unmask")

FinishReason = Literal["stop", "length"]
ENTRIES_AHEAD = 64  # log entries that may wait for a slow reader
DONE = ServerSentEvent("[DONE]", sep="\n")


class CompletionChoice(Message):
    """One sample of one prompt."""

    index: int
    text: str | None
    logprobs: dict[str, Any] | None = Field(
        default=None,
        description="tokens, token_logprobs, top_logprobs and text_offset: of each token its text, the sum of its "
        "digits' log-probabilities as they were revealed, the likeliest classes, and where it begins",
    )
    finish_reason: FinishReason


class CompletionAnswer(Message):
    """The answer of `POST /v1/completions`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage


class AssistantMessage(Message):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Message):
    """One sample of a chat's next message."""

    index: int
    message: AssistantMessage
    logprobs: dict[str, Any] | None = Field(default=None, description="content: an object for each token")
    finish_reason: FinishReason


class ChatAnswer(Message):
    """The answer of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class Call(ABC):
    """A client that waits for the jobs of a call: a generation for each prompt, and perhaps scores of prompts."""

    object: ClassVar[str]  # of a chunk

    def __init__(self, body: OpenAIBody, followers: Sequence[AnyFollower], with_logprobs: bool = False) -> None:
        self.body, self._with_logprobs = body, with_logprobs
        self.jobs = followers
        self.followers = [each for each in followers if isinstance(each, Generation)]
        self.service = followers[0].service
        self.id = call_of(followers[0].job.id, len(followers))
        self.samples = max(1, body.n or 1)
        self._found = [[LogProbabilities({}, {}) for _ in each.plan.schedules] for each in self.followers]
        self.texts = [
            [TextStream(each.served.model, each.plan, index) for index in range(len(each.plan.schedules))]
            for each in self.followers
        ]

    async def answer(self) -> BaseModel:
        """The answer, once every job has ended. Raises JobError."""
        await self._read_scores()
        async for _ in followed(self.followers):
            pass
        answers = [await each.read_answer() for each in self.followers]
        usage = usage_of(
            sum(each.usage.prompt_tokens for each in answers), sum(each.usage.completion_tokens for each in answers)
        )
        choices = [self._choice(number, each) for number, answer in enumerate(answers) for each in answer.choices]
        return self._whole({"choices": choices, "usage": usage})

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Yield frames of nothing but data: the text as it grows, then the end. A failure is a frame too."""
        try:
            await self._read_scores()
            for number, texts in enumerate(self.texts):
                for index in range(len(texts)):
                    for chunk in self._first_chunks(number, index):
                        yield frame(chunk)
            async for number, entry in followed(self.followers):
                for chunk in self._chunks(number, entry):
                    yield frame(chunk)
            if self.body.include_usage:
                yield frame(self._chunk([]) | {"usage": self._usage()})
        except JobError as error:
            yield frame(error_answer(error).model_dump())
        except Exception as error:
            logger.exception("the chunks of call %s cannot be made", self.id)
            yield frame(error_answer(error).model_dump())
        yield DONE

    async def leave(self) -> None:
        """The client has its answer or has disconnected: its jobs are cancelled together."""
        await asyncio.gather(*(each.leave() for each in self.jobs))

    @abstractmethod
    async def _read_scores(self) -> None:
        """Wait for what must be known of the prompts before the first chunk."""

    def _first_chunks(self, number: int, index: int) -> list[dict[str, Any]]:
        """What a sample has to say before its first evaluation."""
        return self._text_chunks(number, index, self.texts[number][index].take())

    def _chunks(self, number: int, entry: LogEntry) -> list[dict[str, Any]]:
        follower = self.followers[number]
        event = follower.event_of(entry)
        if event is None:
            return []
        unmask = event[1]
        if self._with_logprobs and isinstance(entry, Revealed):
            self._found[number][entry.reveal.sample].note(entry.reveal)
        text = self.texts[number][unmask.index]
        if text.sample is not None:  # what is behind its end changes nothing
            return []
        chunks = self._text_chunks(number, unmask.index, text.take(unmask.tokens, unmask.masked))
        if follower.job.candidates:
            chunks = chunks or [self._chunk([self._delta(number, unmask.index, "")])]
            chunks[0]["choices"][0]["candidates"] = unmask.candidates
        return chunks

    def _text_chunks(self, number: int, index: int, piece: str) -> list[dict[str, Any]]:
        text = self.texts[number][index]
        if self.body.diffusing:
            whole = self._before(number) + text.canvas_text()
            choice = self._delta(number, index, whole) | {"diffusion_content": whole}
            chunk = self._chunk([choice]) | {"diffusion_meta": {"diffusion_content": True}}
        elif piece or text.sample is not None:
            chunk = self._chunk([self._delta(number, index, piece)])
        else:
            return []
        return [chunk]

    def _logprobs(self, number: int, index: int) -> list[TokenLogProb]:
        """The tokens whose text goes out with this chunk."""
        if not self._with_logprobs:
            return []
        served, found = self.followers[number].served, self._found[number][index]
        digits, before = served.model.sub_tokenizer.sub_tokens_per_token, len(self._before(number))
        values = [(each, found.of_token(each[0], digits)) for each in self.texts[number][index].tokens_sent()]
        return [
            TokenLogProb(piece, before + offset, value.total, with_texts(served, value.likeliest))
            for (_, offset, piece), value in values
        ]

    def _before(self, number: int) -> str:  # noqa: ARG002 — of a prompt
        """What the text of a prompt's choices begins with."""
        return ""

    def _index(self, number: int, index: int) -> int:
        return number * self.samples + index

    def _end(self, number: int, index: int) -> FinishReason | None:
        sample = self.texts[number][index].sample
        return None if sample is None else sample.finish_reason

    def _head(self) -> dict[str, Any]:
        first = self.followers[0]
        fingerprint = next((each.progress.fingerprint for each in self.followers if each.progress.engines), "")
        return {
            "id": self.id,
            "created": int(first.job.submitted_at),
            "model": first.served.name,
            "system_fingerprint": fingerprint,
        }

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = self._head() | {"object": self.object, "choices": choices}
        if self.body.continuous_usage:
            return chunk | {"usage": self._usage()}
        return chunk | {"usage": None} if self.body.include_usage else chunk

    def _usage(self) -> dict[str, int]:
        """Tokens so far: the given ones, and those that the text has reached."""
        given = sum(len(each.plan.given) for each in self.followers)
        known = [text.token_ids if text.sample is None else text.sample.token_ids for own in self.texts for text in own]
        return usage_of(given, sum(map(len, known))).model_dump()

    @abstractmethod
    def _whole(self, fields: Mapping[str, Any]) -> BaseModel: ...

    @abstractmethod
    def _choice(self, number: int, choice: Choice) -> Any: ...  # noqa: ANN401 — of the endpoint

    @abstractmethod
    def _delta(self, number: int, index: int, piece: str) -> dict[str, Any]: ...


class Completion(Call):
    """A client of `POST /v1/completions`."""

    object = "text_completion"
    body: CompletionBody

    def __init__(self, body: CompletionBody, followers: Sequence[AnyFollower]) -> None:
        super().__init__(body, followers, with_logprobs=body.logprobs is not None)
        self._prompts: dict[int, list[TokenLogProb]] = {}  # of each prompt that is scored, its tokens
        self._untold: dict[tuple[int, int], list[TokenLogProb]] = {}  # of each choice, what its next chunk begins with

    async def _read_scores(self) -> None:
        scored = [number for number, each in enumerate(self.body.scores()) if each is not None]
        scores = [each for each in self.jobs if isinstance(each, Scoring)]
        async for _ in followed(scores):
            pass
        for number, scoring in zip(scored, scores, strict=True):
            self._prompts[number] = of_prompt(scoring.served, await scoring.read_answer(), self._before(number))

    def _whole(self, fields: Mapping[str, Any]) -> BaseModel:
        return CompletionAnswer(**self._head(), **fields)

    def _choice(self, number: int, choice: Choice) -> CompletionChoice:
        before = self._before(number)
        tokens = self._prompts.get(number, []) + of_generated(choice.logprobs, len(before))
        return CompletionChoice(
            index=self._index(number, choice.index),
            text=None if choice.text is None else before + choice.text,
            logprobs=for_completion(tokens) if self._with_logprobs else None,
            finish_reason=choice.finish_reason,
        )

    def _first_chunks(self, number: int, index: int) -> list[dict[str, Any]]:
        self._untold[number, index] = self._prompts.get(number, [])
        piece = self._before(number) + self.texts[number][index].take()
        return self._text_chunks(number, index, piece)

    def _delta(self, number: int, index: int, piece: str) -> dict[str, Any]:
        tokens = self._untold.pop((number, index), []) + self._logprobs(number, index)
        logprobs = for_completion(tokens) if self._with_logprobs else None
        reason = self._end(number, index)
        return {"index": self._index(number, index), "text": piece, "logprobs": logprobs, "finish_reason": reason}

    def _before(self, number: int) -> str:
        """The prompt, where the request asks to repeat it."""
        prompt = self.body.prompts[number] if self.body.echo else ""
        return prompt if isinstance(prompt, str) else text_of(self.followers[number].served.model, prompt) or ""


class ChatCompletion(Call):
    """A client of `POST /v1/chat/completions`."""

    object = "chat.completion.chunk"

    def _whole(self, fields: Mapping[str, Any]) -> BaseModel:
        return ChatAnswer(**self._head(), **fields)

    def __init__(self, body: ChatBody, followers: Sequence[AnyFollower]) -> None:
        super().__init__(body, followers, with_logprobs=bool(body.logprobs))

    async def _read_scores(self) -> None:
        """A chat has none."""

    def _choice(self, number: int, choice: Choice) -> ChatChoice:
        return ChatChoice(
            index=self._index(number, choice.index),
            message=AssistantMessage(content=choice.text or ""),
            logprobs=for_chat(of_generated(choice.logprobs)) if self._with_logprobs else None,
            finish_reason=choice.finish_reason,
        )

    def _first_chunks(self, number: int, index: int) -> list[dict[str, Any]]:
        if self.body.diffusing:  # every chunk has the whole text
            first, *more = super()._first_chunks(number, index)
            first["choices"][0]["delta"]["role"] = "assistant"
            return [first, *more]
        role = {"role": "assistant", "content": ""}
        begin = {"index": index, "delta": role, "logprobs": None, "finish_reason": None}
        return [self._chunk([begin]), *super()._first_chunks(number, index)]

    def _delta(self, number: int, index: int, piece: str) -> dict[str, Any]:
        logprobs = for_chat(self._logprobs(number, index)) if self._with_logprobs else None
        reason = self._end(number, index)
        return {"index": index, "delta": {"content": piece}, "logprobs": logprobs, "finish_reason": reason}


async def followed(followers: Sequence[AnyFollower]) -> AsyncIterator[tuple[int, LogEntry]]:
    """Follow several logs at once: yield (number of the follower, entry) to the end of all.

    Raises JobError: one of them ends with a failure.
    """
    entries: asyncio.Queue[tuple[int, LogEntry] | Exception | None] = asyncio.Queue(ENTRIES_AHEAD)

    async def follow(number: int, follower: AnyFollower) -> None:
        try:
            async for _, entry in follower.follow():
                await entries.put((number, entry))
            await entries.put(None)
        except Exception as error:
            await entries.put(error)

    following = [asyncio.create_task(follow(*each)) for each in enumerate(followers)]
    try:
        running = len(following)
        while running:
            entry = await entries.get()
            if isinstance(entry, Exception):
                raise entry
            if entry is None:
                running -= 1
            else:
                yield entry
    finally:
        for task in following:
            task.cancel()


def frame(data: Mapping[str, Any]) -> ServerSentEvent:
    """One frame of a stream: a line of data and nothing else."""
    return ServerSentEvent(json.dumps(data, allow_nan=False), sep="\n")  # ASCII: nobody splits lines within it


def usage_of(prompt: int, completion: int) -> Usage:
    """Numbers of tokens."""
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
