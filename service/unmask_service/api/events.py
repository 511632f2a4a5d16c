"""Log entries as Server-Sent Events. An event's id is its entry's position in the log; `start` comes before: 0."""

from pydantic import BaseModel
from sse_starlette import ServerSentEvent
from unmask_diffusion import Plan

from unmask_service.api.error_answers import error_answer
from unmask_service.api.gate import ServedModel
from unmask_service.api.schemas import StartEvent, UnmaskEvent
from unmask_service.api.transcript import Transcript
from unmask_service.broker import Job, Revealed


def start_event(served: ServedModel, job: Job, plan: Plan, transcript: Transcript) -> ServerSentEvent:
    """What will be done, known before the first network evaluation."""
    sub_tokenizer = served.model.sub_tokenizer
    start = StartEvent(
        id=job.id,
        model=served.name,
        length=plan.length,
        sub_tokens_per_token=sub_tokenizer.sub_tokens_per_token,
        base=sub_tokenizer.base,
        masked=plan.sub_tokens,
        network_evaluations=plan.network_evaluations,
        eta_ms=None if job.expected_seconds is None else round(1000 * job.expected_seconds),
        seed=plan.seed,
        canvas=[transcript.given()] * len(plan.schedules),
    )
    return event("start", 0, start)


def unmask_event(position: int, job: Job, plan: Plan, entry: Revealed, transcript: Transcript) -> ServerSentEvent:
    """What one network evaluation revealed in one sample; the transcript moves on with it."""
    reveal = entry.reveal
    unmask = UnmaskEvent(
        index=reveal.sample,
        step=reveal.step + 1,
        steps=len(plan.schedules[reveal.sample].steps),
        sub_tokens=list(reveal.sub_tokens),
        tokens=transcript.reveal(reveal),
    )
    if job.candidates:
        unmask = unmask.model_copy(update={"candidates": transcript.candidates(entry.candidates)})
    return event("unmask", position, unmask)


def done_event(position: int, answer: BaseModel) -> ServerSentEvent:
    """The same object as the answer without a stream."""
    return event("done", position, answer)


def error_event(position: int, error: Exception) -> ServerSentEvent:
    """Why the stream ends here."""
    return event("error", position, error_answer(error))


def event(name: str, position: int, data: BaseModel) -> ServerSentEvent:
    """An event of the log's position."""
    return ServerSentEvent(data.model_dump_json(exclude_unset=True), event=name, id=str(position), sep="\n")
