"""What is stored in Redis: the names of the keys, and messages as JSON, never pickle.

A plan is stored without its schedules: they follow from its seed, its holes and its sampler. A score is stored without
its passes. A log entry is an array that begins with its kind: there may be one for every network evaluation.
"""

import json
from dataclasses import dataclass
from typing import Any

from unmask_diffusion import (
    Candidates,
    GenerationRequest,
    Outline,
    Plan,
    Readout,
    Reveal,
    ScorePlan,
    ScoreRequest,
    make_score_plan,
    plan_on_canvas,
)

from unmask_service.broker.messages import Failed, Finished, Job, LogEntry, PictureForm, Revealed, Scored, Started
from unmask_service.forecast import Capacity, Pace, Work

# Version of everything below; it is part of all keys, so processes of two versions share a Redis without meeting.
FORMAT = 7
# Fields of a generation request that the laid-out canvas does not hold.
REQUEST_FIELDS = {
    "n",
    "seed",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "sampler",
    "logit_bias",
    "logprobs",
    "stop",
    "ignore_eos",
}
# Fields of a job but its plan.
JOB_FIELDS = ("id", "submitted_at", "expected_seconds", "detached", "request_id", "trace_id", "candidates")


@dataclass(frozen=True)
class Keys:
    """The keys of one model. scripts/prelude.lua spells the same names.

    | key | what |
    | --- | --- |
    | `jobs` | stream, consumer group `workers`: an entry for each job that has not ended, its id |
    | `open` | hash: id → its work as planned, for forecasts |
    | `left` | hash: id → network evaluations left |
    | `owners` | hash: id → the worker that has claimed it |
    | `attended` | sorted set: id by the time when a client last followed it or looked it up |
    | `waiting:CLIENT` | sorted set: id of a job that no worker has claimed yet, by its arrival |
    | `turns` | sorted set: client by its turn in fair queueing |
    | `fair` | hash: `now`, the turn of the job that was claimed last, and `arrivals`, the number of jobs ever queued |
    | `requests:CLIENT` | set: ids that have not ended |
    | `whole:CLIENT` | hash: `at`, when the client's quota of evaluations is whole again; it expires then |
    | `workers` | sorted set: worker by the time when it last renewed its leases |
    | `capacities` | hash: worker → what it does in a tick |
    | `generation:ID` | hash: job, entry in `jobs`, client, fencing token, attempts, state once it has ended |
    | `log:ID` | stream: an entry for each log entry, under its position |
    | `key:NAME` | hash: the job that an idempotency key belongs to |
    | `wake:PROCESS` | stream: an entry ends an API process' blocking read, so that it reads one more log |
    """

    prefix: str
    model: str  # its name

    @property
    def base(self) -> str:
        """The prefix of all keys; in a Redis Cluster the braces keep a model's keys on one node."""
        return f"{self.prefix}:v{FORMAT}:{{{self.model}}}:"

    @property
    def jobs(self) -> str:
        return self.base + "jobs"

    def log(self, job_id: str) -> str:
        return f"{self.base}log:{job_id}"

    def idempotency(self, name: str) -> str:
        return f"{self.base}key:{name}"

    def wake(self, process: str) -> str:
        return f"{self.base}wake:{process}"


def encode_job(job: Job) -> str:
    """A job as JSON."""
    value: dict[str, Any] = {name: getattr(job, name) for name in JOB_FIELDS}
    if job.picture is not None:
        value["picture"] = vars(job.picture)
    if job.trace_context is not None:
        value["trace_context"] = job.trace_context
    plan = job.plan
    if isinstance(plan, ScorePlan):
        value["score"] = plan.request.model_dump()
    else:
        value["request"] = plan.request.model_dump(include=REQUEST_FIELDS)
        value["canvas"], value["generated"] = plan.canvas, [plan.generated.start, plan.generated.stop]
        if plan.digits:
            value["digits"] = plan.digits
        if plan.sets:
            value["sets"] = plan.sets
    return _dumps(value)


def decode_job(text: bytes, model: Outline) -> Job:
    """A job from JSON. This draws its schedules again, which takes milliseconds: call it off the event loop."""
    value = json.loads(text)
    plan: Plan | ScorePlan
    if "score" in value:
        plan = make_score_plan(model, ScoreRequest.model_validate(value["score"]))
    else:
        request = GenerationRequest.model_validate({**value["request"], "canvas": value["canvas"]})
        digits = tuple((position, j, digit) for position, j, digit in value.get("digits", ()))
        sets = {int(position): tuple(members) for position, members in value.get("sets", {}).items()}
        plan = plan_on_canvas(model, request, tuple(value["canvas"]), range(*value["generated"]), digits, sets)
    picture = PictureForm(**value["picture"]) if "picture" in value else None
    fields = {name: value[name] for name in JOB_FIELDS}
    return Job(plan=plan, picture=picture, trace_context=value.get("trace_context"), **fields)


def encode_entry(entry: LogEntry) -> str:
    """A log entry as JSON."""
    match entry:
        case Started():
            return _dumps(["started", entry.at, entry.fingerprint])
        case Revealed(reveal=reveal):
            fields = ["revealed", entry.at, reveal.sample, reveal.step, reveal.sub_tokens, entry.lane]
            more = {
                "masked": reveal.masked,
                "candidates": [[each.position, each.classes_left, each.likeliest] for each in entry.candidates],
                "saved": entry.saved,
                "log_probabilities": reveal.log_probabilities,
                "likeliest": reveal.likeliest,
            }
            more = {name: value for name, value in more.items() if value}
            return _dumps([*fields, more] if more else fields)
        case Scored(readout=readout):
            sums = [readout.units, readout.joint_units, readout.by_token]
            sums += [readout.likeliest] if readout.likeliest else []
            return _dumps(["scored", entry.at, readout.index, readout.evaluations, *sums])
        case Finished():
            return _dumps(["finished", entry.at])
        case Failed():
            return _dumps(["failed", entry.at, entry.reason, entry.message])


def decode_entry(text: bytes) -> LogEntry:
    """A log entry from JSON; ValueError if it is none."""
    kind, *values = json.loads(text)
    match kind, values:
        case "started", [at, fingerprint]:
            return Started(at, fingerprint)
        case "revealed", [at, sample, step, sub_tokens, lane, *rest]:
            more: dict[str, Any] = rest[0] if rest else {}
            likeliest = ((where, tuple(map(tuple, each))) for where, each in more.get("likeliest", ()))
            log_probabilities = tuple(more.get("log_probabilities", ()))
            masked = tuple(map(tuple, more.get("masked", ())))
            reveal = Reveal(sample, step, tuple(map(tuple, sub_tokens)), masked, log_probabilities, tuple(likeliest))
            candidates = (
                Candidates(where, left, tuple(map(tuple, each))) for where, left, each in more.get("candidates", ())
            )
            return Revealed(at, reveal, lane, tuple(candidates), more.get("saved", 0))
        case "scored", [at, index, evaluations, units, joint_units, by_token, *rest]:
            units_by_token = tuple((position, of_token) for position, of_token in by_token)
            classes = tuple((position, tuple(map(tuple, each))) for position, each in (rest or [[]])[0])
            return Scored(at, Readout(index, evaluations, units, units_by_token, joint_units, classes))
        case "finished", [at]:
            return Finished(at)
        case "failed", [at, reason, message]:
            return Failed(at, reason, message)
    raise ValueError(f"unknown kind of log entry {kind!r}")


def encode_work(work: Work, submitted_at: float) -> str:
    """What a forecast needs of a job that has not ended: its work, and when it was submitted."""
    return _dumps([submitted_at, *vars(work).values()])


def decode_work(text: bytes) -> tuple[float, Work]:
    """When a job was submitted, and its work."""
    submitted_at, *work = json.loads(text)
    return submitted_at, Work(*work)


def encode_capacity(capacity: Capacity) -> str:
    """A capacity as JSON."""
    return _dumps({**vars(capacity), "pace": vars(capacity.pace)})


def decode_capacity(text: bytes) -> Capacity:
    """A capacity from JSON."""
    value = json.loads(text)
    return Capacity(**{**value, "pace": Pace(**value["pace"])})


def _dumps(value: Any) -> str:  # noqa: ANN401 — JSON
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
