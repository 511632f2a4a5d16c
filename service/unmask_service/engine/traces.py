"""The spans of an engine's tasks: how long each has waited, and this engine's part of it."""

import time
from typing import TYPE_CHECKING, Any

from unmask_diffusion import ScorePlan

from unmask_service.broker import LogEntry, Revealed, Scored, Started, endpoint_of
from unmask_service.engine.tasks import Task
from unmask_service.traces import end_span, inference, parent_from, tracer

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class TaskSpans:
    """A span for each task that runs, below the HTTP request's. While traces are off there is none."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._open: dict[str, Span] = {}  # by the job's id

    def begin(self, task: Task, started: Started) -> None:
        """Begin the span of a task that this engine has claimed; the first engine says how long it has waited."""
        if (made := tracer()) is None:
            return
        job, parent, at = task.job, parent_from(task.job.trace_context), nanoseconds(started.at)
        facts = inference(endpoint_of(job.id), self._model)
        if task.progress.started_at is None:
            submitted_at = min(at, nanoseconds(job.submitted_at))
            made.start_span("queue", parent, attributes=facts, start_time=submitted_at).end(at)
        attributes = facts | parameters_of(task) | {"unmask.fingerprint": started.fingerprint}
        name = f"{facts['gen_ai.operation.name']} {self._model}"
        self._open[job.id] = made.start_span(name, parent, attributes=attributes, start_time=at)

    def note(self, task: Task, entry: LogEntry) -> None:
        """An entry of a task's log is published: rounds 1, 2, 4, 8, … become events of its span."""
        begins_round = isinstance(entry, Scored) or (isinstance(entry, Revealed) and entry.lane == 0)
        rounds = task.progress.rounds
        if begins_round and rounds & (rounds - 1) == 0 and (running := self._open.get(task.job.id)) is not None:
            facts = {"unmask.rounds": rounds, "unmask.network_evaluations_left": task.evaluations_left}
            running.add_event("tick", facts, nanoseconds(entry.at))

    def end(self, task: Task, outcome: str, error: str = "", at: float | None = None) -> None:
        """A task has ended, or is not this engine's any more. `at`: Unix time in seconds; None: now."""
        if (running := self._open.pop(task.job.id, None)) is not None:
            running.set_attribute("unmask.rounds", task.progress.rounds)
            end_span(running, time.time_ns() if at is None else nanoseconds(at), outcome, error)

    def end_all(self) -> None:
        """The engine ends: other engines resume its tasks."""
        for running in self._open.values():
            end_span(running, time.time_ns(), "released")
        self._open.clear()


def parameters_of(task: Task) -> dict[str, Any]:
    """What a task's request asks for, without its tokens."""
    plan, job = task.plan, task.job
    facts: dict[str, Any] = {
        "gen_ai.response.id": job.id,
        "gen_ai.request.seed": plan.seed,
        "unmask.network_evaluations": plan.network_evaluations,
        "unmask.takeover": bool(task.progress.engines),
    }
    if isinstance(plan, ScorePlan):
        return facts
    request = plan.request
    asked = {"temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k}
    asked |= {"max_tokens": len(plan.generated), "choice.count": request.n}
    facts |= {f"gen_ai.request.{name}": value for name, value in asked.items()}
    return facts | {"unmask.sampler": request.sampler.name, "unmask.idle_steps": plan.idle_steps}


def nanoseconds(at: float) -> int:
    """A Unix time in seconds as OpenTelemetry has it."""
    return int(at * 1e9)
