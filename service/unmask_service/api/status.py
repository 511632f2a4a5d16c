"""Where a generation or a score is: its state, its progress, when it will end, or how it ended."""

from unmask_service.api.error_answers import error_answer
from unmask_service.api.errors import GenerationError
from unmask_service.api.followed import AnyFollowed
from unmask_service.api.schemas import JobStatus
from unmask_service.api.service import Service
from unmask_service.broker import Record
from unmask_service.forecast import Work, outlook


async def status_of(service: Service, followed: AnyFollowed) -> JobStatus:
    """The status of a job; with its answer, if it is finished."""
    record = followed.record
    planned = record.job.plan.network_evaluations
    done = planned - record.evaluations_left
    status: JobStatus = followed.status_type(
        id=record.job.id,
        model=service.card.id,
        created=int(record.job.submitted_at),
        state=record.state,
        progress=1.0 if record.state == "finished" else done / planned if planned else 0.0,
        network_evaluations=planned,
        network_evaluations_done=done,
        eta_ms=await eta_ms(service, record),
    )
    if not record.ended:
        return status
    try:
        return followed.finished(status, await followed.answer())
    except GenerationError as error:
        return status.model_copy(update={"error": error_answer(error).error})


async def eta_ms(service: Service, record: Record) -> int | None:
    """Milliseconds until the end, as it was forecast for one that waits, at the pace of now for one that runs."""
    job = record.job
    if record.state == "running" and (load := await service.broker.load()).capacity is not None:
        rest = Work.of(job.plan).left(record.evaluations_left)
        ahead = outlook(load, load.capacity, rest)
        return round(1000 * (ahead.seconds_of(rest) - ahead.start_seconds))
    if record.state == "waiting" and job.expected_seconds is not None:
        return max(0, round(1000 * (job.submitted_at + job.expected_seconds - service.broker.now())))
    return None
