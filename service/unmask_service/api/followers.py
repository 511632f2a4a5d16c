"""A job as a client sees it: its log read from any position, on any API process, as events, a status or an answer.

Every event is made in plain Python from a few integers: a call into torch would release the interpreter's lock to the
evaluation that runs beside it, and wait to get it back.
"""

import asyncio
import dataclasses
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel
from sse_starlette import ServerSentEvent
from torch import Tensor
from unmask_diffusion import (
    Painter,
    Plan,
    Reveal,
    ScorePlan,
    Tally,
    read_sample,
    read_score,
    replay,
    untrained_warnings,
)

from unmask_service.api.errors import JobError, RefusedError, error_answer, job_error, quoted
from unmask_service.api.logprobs import classes_of, logprobs_of
from unmask_service.api.schemas import (
    Choice,
    GenerateAnswer,
    GenerationStatus,
    ImageEvent,
    JobStatus,
    PngImage,
    Sampling,
    StartEvent,
    Timings,
    Token,
    UnmaskEvent,
    Usage,
)
from unmask_service.api.score_schemas import (
    ProgressEvent,
    ScoreAnswer,
    ScoreNumbers,
    ScoreStartEvent,
    ScoreStatus,
    ScoreTimings,
)
from unmask_service.api.service import Models, ServedModel, Service
from unmask_service.broker import (
    Failed,
    Job,
    JobProgress,
    JobRecord,
    LogEntry,
    Revealed,
    Scored,
    endpoint_of,
    milliseconds_between,
)
from unmask_service.forecast import Load, Work, outlook
from unmask_service.logs import log_request
from unmask_service.pictures import base64_of, png_of
from unmask_service.traces import note_usage

logger = logging.getLogger("unmask")

# JSON leaves these as they are, and many readers of lines (Python's among them) end a line there
LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}

Answer = TypeVar("Answer", bound=BaseModel)
Painted = TypeVar("Painted")


class Follower(ABC, Generic[Answer]):
    """A client that follows a job. The two subclasses know what the log of a generation, and of a score, means."""

    plan_type: ClassVar[type]
    noun: ClassVar[str]
    id_prefix: ClassVar[str]
    status_type: ClassVar[type[JobStatus]]
    plan: Any  # of `plan_type`: subclasses declare it

    def __init__(self, service: Service, served: ServedModel, record: JobRecord, owned: bool = False) -> None:
        self.service, self.served = service, served
        self.record = record  # what the broker knew of the job when the client came
        self.job: Job = record.job
        self.plan = record.job.plan
        self.owned = owned  # whether it is the client that sent the job: an attached job ends when it leaves
        self.progress = JobProgress()  # times and engines, from the log as far as it was read

    @classmethod
    async def known(cls, service: Service, job_id: str) -> Self:
        """Follow a job that was queued before. Raises RefusedError: the model is not loaded, or the job not known."""
        served = service.gate.look_in()
        record = await service.broker.look_up(job_id)
        if record is None or not isinstance(record.job.plan, cls.plan_type):
            message = f"{cls.noun} {quoted(job_id)} does not exist here, or does not exist any more"
            raise RefusedError(f"{cls.noun}_not_found", message, "id")
        return cls(service, served, record)

    @classmethod
    async def find(cls, models: Models, job_id: str) -> Self:
        """As `known`, for a job of any of the models."""
        refused: list[RefusedError] = []
        for service in models.services.values():
            try:
                return await cls.known(service, job_id)
            except RefusedError as error:
                refused.append(error)
        raise max(
            refused, key=lambda error: error.status_code
        )  # not to know it now is not to know that it is not there

    async def answer(self) -> Answer:
        """Follow the log to its end; the answer is its last state. Raises JobError: the log ends with a failure."""
        async for _ in self.follow():
            pass
        return await self.read_answer()

    async def events(self, after: int | None = None) -> AsyncIterator[ServerSentEvent]:
        """Yield an event for each entry of the log behind a position, as it grows. A failure is an event too.

        The id of an event is the position of its entry in the log. `start` comes before the first: 0.
        """
        position, seen = 0, -1 if after is None else after
        try:
            if seen < position:
                yield event("start", position, self._start())
            async for position, entry in self.follow():
                data = self.event_of(entry)
                if data is not None and seen < position:
                    yield event(data[0], position, data[1])
                    for picture in await self.pictures(entry):
                        yield event("image", position, picture)
            yield event("done", position, await self.read_answer())
        except JobError as error:
            yield event("error", position + 1, error_answer(error))
        except Exception as error:
            logger.exception("the events of %s %s cannot be made", self.noun, self.job.id)
            yield event("error", position + 1, error_answer(error))

    async def status(self) -> JobStatus:
        """Where the job is, and its answer if it has finished."""
        record, planned = self.record, self.plan.network_evaluations
        done = planned - record.evaluations_left
        status: JobStatus = self.status_type(
            id=self.job.id,
            model=self.service.card.id,
            created=int(self.job.submitted_at),
            state=record.state,
            progress=1.0 if record.state == "finished" else done / planned if planned else 0.0,
            network_evaluations=planned,
            network_evaluations_done=done,
            eta_ms=await self._eta_ms(),
        )
        if not record.ended:
            return status
        try:
            if record.state == "cancelled":  # its log may have been forgotten with its client
                raise JobError("cancelled", "the request was cancelled")
            return self._finished(status, await self.answer())
        except JobError as error:
            return status.model_copy(update={"error": error_answer(error).error})

    async def status_json(self) -> bytes:
        """The status as JSON. That of a job that has ended does not change: it is kept for a while."""
        if self.record.ended and (known := self.service.statuses.get(self.job.id)) is not None:
            return known
        text = (await self.status()).model_dump_json().encode()
        if self.record.ended:
            self.service.statuses.put(self.job.id, text)
        return text

    async def cancel(self) -> JobStatus:
        """Cancel the job if it has not ended; where it is then."""
        saved = await self.service.broker.cancel(self.job.id)
        self.count_cancelled(saved)
        try:
            return await (await self.known(self.service, self.job.id)).status()
        except RefusedError:  # its client has read the end, and left: it is forgotten
            if self.record.ended:
                raise
            gone = type(self)(self.service, self.served, dataclasses.replace(self.record, state="cancelled"))
            return await gone.status()

    async def leave(self) -> None:
        """The client has its answer or has disconnected: cancel and forget the job if only this client wanted it."""
        if self.owned and not self.job.detached:
            self.count_cancelled(await self.service.broker.leave(self.job.id))

    def count_cancelled(self, saved: int | None) -> None:
        """Count a job that was cancelled before an engine took it (`saved` evaluations); engines count the others."""
        if saved is not None:
            self.service.metrics.evaluations_saved.inc(saved)
            self.service.metrics.count_request(endpoint_of(self.job.id), "cancelled")
            log_request(self.job, JobProgress(), "cancelled", model=self.service.card.id)

    async def follow(self) -> AsyncIterator[tuple[int, LogEntry]]:
        """Yield (position, entry) of the log as it grows, and keep what the answer needs of it.

        Raises JobError: the log ends with a failure.
        """
        begun = self.service.broker.now()
        async for position, entry in self.service.broker.follow(self.job.id):
            self.progress.note(entry)
            if isinstance(entry, Failed):
                raise job_error(entry)
            if isinstance(entry, Revealed | Scored) and entry.at > begun:
                self.service.metrics.log_lag_seconds.observe(max(0.0, self.service.broker.now() - entry.at))
            self._note(entry)
            yield position, entry

    async def _eta_ms(self) -> int | None:
        """Milliseconds until the end: as forecast for a job that waits, at the current pace for one that runs."""
        if self.record.state == "running" and (load := await self.service.broker.load()).capacity is not None:
            rest = Work.of(self.plan).left(self.record.evaluations_left)
            ahead = outlook(without(load, rest), load.capacity, rest)
            return round(1000 * (ahead.seconds_of(rest) - ahead.start_seconds))
        if self.record.state == "waiting" and self.job.expected_seconds is not None:
            return max(0, round(1000 * (self.job.submitted_at + self.job.expected_seconds - self.service.broker.now())))
        return None

    async def pictures(self, _entry: LogEntry) -> list[ImageEvent]:
        """The pictures that follow the event of an entry."""
        return []

    # the five parts in which a generation and a score differ

    @abstractmethod
    def _start(self) -> BaseModel:
        """The data of the event `start`: what will be done, known before the first network evaluation."""

    @abstractmethod
    def _note(self, entry: LogEntry) -> None:
        """Keep what the answer needs of an entry."""

    @abstractmethod
    def event_of(self, entry: LogEntry) -> tuple[str, BaseModel] | None:
        """The event for an entry, if it has one: name and data. It is called for every entry in turn."""

    @abstractmethod
    async def read_answer(self) -> Answer:
        """The answer, once the log has been followed to its end."""

    @abstractmethod
    def _finished(self, status: JobStatus, answer: Answer) -> JobStatus: ...


AnyFollower = Follower[Any]


class Generation(Follower[GenerateAnswer]):
    """A client that follows a generation."""

    plan_type, noun, id_prefix, status_type = Plan, "generation", "gen", GenerationStatus
    plan: Plan

    def __init__(self, service: Service, served: ServedModel, record: JobRecord, owned: bool = False) -> None:
        super().__init__(service, served, record, owned)
        self._reveals: list[Reveal] = []
        self._evaluations = Counter[int]()  # of each sample, that have had their events
        # of each sample: position → j → digit of intermediate tokens, and of complete ones that may be masked again
        self._intermediate: list[dict[int, dict[int, int]]] = [{} for _ in self.plan.schedules]
        for position, j, digit in self.plan.digits:
            for intermediate in self._intermediate:
                intermediate.setdefault(position, {})[j] = digit
        # of each sample the whole canvas, where the stream has pictures on the way
        self._canvases: list[Tensor] = []
        if self.job.picture is not None and self.job.picture.partial_images:
            self._canvases = replay(served.model, self.plan, ())

    def _start(self) -> StartEvent:
        plan, sub_tokenizer, text_of = self.plan, self.served.model.sub_tokenizer, self.served.vocabulary.text_of
        given = [(position, token, text_of(token)) for position, token in plan.given]
        image = self.service.card.image
        start = StartEvent(
            id=self.job.id,
            model=self.served.name,
            length=plan.length,
            sub_tokens_per_token=sub_tokenizer.sub_tokens_per_token,
            base=sub_tokenizer.base,
            masked=plan.sub_tokens,
            network_evaluations=plan.network_evaluations,
            eta_ms=milliseconds(self.job.expected_seconds),
            seed=plan.seed,
            canvas=[given] * len(plan.schedules),
        )
        more = {"image": image, "sub_tokens": [*plan.digits]}
        return start.model_copy(update={name: value for name, value in more.items() if value})

    async def reveals_so_far(self) -> list[Reveal]:
        """The reveals that the log had when the client came."""
        reveals: list[Reveal] = []
        if self.record.log_length:
            async for position, entry in self.service.broker.follow(self.job.id):
                if isinstance(entry, Revealed):
                    reveals.append(entry.reveal)
                if position >= self.record.log_length:
                    break
        return reveals

    def _note(self, entry: LogEntry) -> None:
        if isinstance(entry, Revealed):
            self._reveals.append(entry.reveal)
            if self._canvases:
                entry.reveal.write(self._canvases[entry.reveal.sample])

    def event_of(self, entry: LogEntry) -> tuple[str, UnmaskEvent] | None:
        if not isinstance(entry, Revealed):
            return None
        reveal, text_of = entry.reveal, self.served.vocabulary.text_of
        self._evaluations[reveal.sample] += 1
        unmask = UnmaskEvent(
            index=reveal.sample,
            step=self._evaluations[reveal.sample],
            steps=len(self.plan.schedules[reveal.sample].steps),
            sub_tokens=list(reveal.sub_tokens),
            tokens=self._complete(reveal),
        )
        if reveal.masked:
            unmask = unmask.model_copy(update={"masked": list(reveal.masked)})
        if self.plan.request.logprobs is not None:
            unmask = unmask.model_copy(update={"log_probabilities": list(reveal.log_probabilities)})
        if self.plan.request.logprobs:
            likeliest = [(position, classes_of(each, self.served.vocabulary)) for position, each in reveal.likeliest]
            unmask = unmask.model_copy(update={"likeliest": likeliest})
        if self.job.candidates:
            candidates = [
                (each.position, each.classes_left, [(token, text_of(token), p) for token, p in each.likeliest])
                for each in entry.candidates
            ]
            unmask = unmask.model_copy(update={"candidates": candidates})
        return "unmask", unmask

    async def pictures(self, entry: LogEntry) -> list[ImageEvent]:
        form, painter = self.job.picture, self.served.model.image
        if not self._canvases or not isinstance(entry, Revealed) or form is None or painter is None:
            return []
        index, before, wanted = entry.reveal.sample, entry.reveal.step, form.partial_images
        steps, after, step = (
            len(self.plan.schedules[index].steps),
            self.plan.step_after(entry.reveal),
            self._evaluations[index],
        )
        due = [number for number in range(wanted) if before < -(-(number + 1) * steps // (wanted + 1)) <= after]
        if not due:
            return []
        picture = await self._painted(png_image, painter.paint(self._canvases[index]), form.scale)
        return [ImageEvent(**dict(picture), index=index, partial_image_index=number, step=step) for number in due]

    async def _painted(self, paint: Callable[..., Painted], *arguments: object) -> Painted:
        """Paint in the thread for that."""
        return await asyncio.get_running_loop().run_in_executor(self.service.shared.painters, paint, *arguments)

    def _complete(self, reveal: Reveal) -> list[Token]:
        """Take in a reveal; the tokens that it completes."""
        vocabulary, intermediate = self.served.vocabulary, self._intermediate[reveal.sample]
        remasks = self.plan.schedules[reveal.sample].steps.again is not None
        completed: list[Token] = []
        for position, j, digit in reveal.sub_tokens:
            digits = intermediate.setdefault(position, {})
            digits[j] = digit
            if len(digits) == self.served.model.sub_tokenizer.sub_tokens_per_token:
                if not remasks:
                    del intermediate[position]
                token = vocabulary.id_of[tuple(map(digits.__getitem__, range(len(digits))))]
                completed.append((position, token, vocabulary.text_of(token)))
        for position, j in reveal.masked:
            del intermediate[position][j]
        return sorted(completed)

    async def read_answer(self) -> GenerateAnswer:
        plan, progress, since = self.plan, self.progress, self.job.submitted_at
        evaluations = len(self._reveals)
        choices = await asyncio.to_thread(self._choices)
        form, painter = self.job.picture, self.served.model.image
        if form is not None and painter is not None and form.png:
            choices = await self._painted(with_pictures, choices, painter, form.scale)
        given, returned = len(plan.given), sum(len(choice.token_ids) for choice in choices)
        note_usage(given, returned)
        return GenerateAnswer(
            id=self.job.id,
            model=self.served.name,
            created=int(since),
            choices=choices,
            usage=Usage(prompt_tokens=given, completion_tokens=returned, total_tokens=given + returned),
            sampling=Sampling(
                seed=plan.seed,
                sub_tokens=sum(len(reveal.sub_tokens) - len(reveal.masked) for reveal in self._reveals),
                network_evaluations=evaluations,
                rounds=progress.rounds,
                idle_steps=plan.idle_steps,
                steps=plan.request.sampler.steps,
                evaluations_saved=None
                if plan.request.sampler.block_length is None and not plan.request.sampler.by_bound
                else plan.network_evaluations - evaluations,
            ),
            timings=Timings(
                queue_ms=milliseconds_between(since, progress.started_at) or 0.0,
                first_unmask_ms=milliseconds_between(since, progress.first_unmask_at),
                total_ms=milliseconds_between(since, progress.ended_at) or 0.0,
            ),
            fingerprint=progress.fingerprint,
            warnings=untrained_warnings(plan, self.served.trained),
            recoloured_pixels=None if form is None else form.recoloured,
        )

    def _choices(self) -> list[Choice]:
        model, plan, choices = self.served.model, self.plan, []
        continues = plan.continues_text(model)
        logs: list[list[Reveal]] = [[] for _ in plan.schedules]
        for reveal in self._reveals:
            logs[reveal.sample].append(reveal)
        for index, digits in enumerate(replay(model, plan, self._reveals)):
            sample = read_sample(model, plan, index, digits, logs[index])
            choices.append(
                Choice(
                    index=index,
                    text=sample.text,
                    token_ids=[*sample.token_ids],
                    finish_reason=sample.finish_reason,
                    logprobs=logprobs_of(sample, model.tokenizer, self.served.vocabulary, continues),
                    log_probability=sample.log_probability,
                )
            )
        return choices

    def _finished(self, status: JobStatus, answer: GenerateAnswer) -> JobStatus:
        return status.model_copy(update={name: getattr(answer, name) for name in type(answer).model_fields})


def png_image(pixels: Tensor, scale: int) -> PngImage:
    """Pixels, uint8 [H, W, 4], as an answer has them."""
    height, width, _ = pixels.shape
    return PngImage(b64_json=base64_of(png_of(pixels, scale)), width=width * scale, height=height * scale)


def with_pictures(choices: Sequence[Choice], painter: Painter, scale: int) -> list[Choice]:
    """Choices with their pictures."""
    return [
        choice.model_copy(update={"image": png_image(painter.paint(choice.token_ids), scale)}) for choice in choices
    ]


class Scoring(Follower[ScoreAnswer]):
    """A client that follows a score."""

    plan_type, noun, id_prefix, status_type = ScorePlan, "score", "score", ScoreStatus
    plan: ScorePlan

    def __init__(self, service: Service, served: ServedModel, record: JobRecord, owned: bool = False) -> None:
        super().__init__(service, served, record, owned)
        self._tally = Tally(self.plan)

    def _start(self) -> ScoreStartEvent:
        plan = self.plan
        return ScoreStartEvent(
            id=self.job.id,
            model=self.served.name,
            tokens=plan.scored_tokens,
            sub_tokens=plan.sub_tokens,
            windows=len(plan.windows),
            window=plan.window_tokens,
            overlap=plan.overlap,
            estimator=plan.request.estimator,
            replicates=plan.replicates,
            network_evaluations=plan.network_evaluations,
            eta_ms=milliseconds(self.job.expected_seconds),
            seed=plan.seed,
        )

    def _note(self, entry: LogEntry) -> None:
        if isinstance(entry, Scored):
            self._tally.note(entry.readout)

    def event_of(self, entry: LogEntry) -> tuple[str, ProgressEvent] | None:
        if not isinstance(entry, Scored):
            return None
        bound, tokens = self._tally.estimate(), self.plan.scored_tokens
        progress = ProgressEvent(
            network_evaluations=self.plan.network_evaluations,
            network_evaluations_done=self._tally.evaluations,
            replicates=self._tally.replicates,
            nats_per_token=None if bound is None else bound.nats / tokens,
            standard_error_per_token=None if bound is None else bound.standard_error / tokens,
        )
        return "progress", progress

    async def read_answer(self) -> ScoreAnswer:
        score = await asyncio.to_thread(read_score, self.served.model, self._tally)
        text_of, picture = self.served.vocabulary.text_of, self.served.model.image is not None
        numbers = ScoreNumbers.of(self.served.name, self.plan, score, text_of, picture)
        progress, since = self.progress, self.job.submitted_at
        return ScoreAnswer(
            **vars(numbers),
            id=self.job.id,
            created=int(since),
            timings=ScoreTimings(
                queue_ms=milliseconds_between(since, progress.started_at) or 0.0,
                total_ms=milliseconds_between(since, progress.ended_at) or 0.0,
            ),
            fingerprint=progress.fingerprint,
        )

    def _finished(self, status: JobStatus, answer: ScoreAnswer) -> JobStatus:
        return status.model_copy(update={"answer": answer})


def without(load: Load, work: Work) -> Load:
    """The load of the others: without the running job that is this work, or was a moment ago."""

    def distance(running: Work) -> tuple[int, int]:
        return abs(running.tokens - work.tokens), abs(running.evaluations - work.evaluations)

    others = list(load.running)
    if others:
        others.remove(min(others, key=distance))
    return dataclasses.replace(load, running=tuple(others))


def milliseconds(seconds: float | None) -> int | None:
    """Whole milliseconds."""
    return None if seconds is None else round(1000 * seconds)


def event(name: str, position: int, data: BaseModel) -> ServerSentEvent:
    """An event for the entry at a position of the log."""
    text = data.model_dump_json(exclude_unset=True).translate(LINE_ENDS)
    return ServerSentEvent(text, event=name, id=str(position), sep="\n")
