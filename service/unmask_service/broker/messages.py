"""Messages between API processes and engines: jobs one way, log entries the other; and what is counted from a log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from unmask_diffusion import Candidates, Plan, Readout, Reveal, ScorePlan

FailureReason = Literal[
    "impossible",  # the given tokens have probability zero
    "engine",  # an internal error
    "draining",  # the server shuts down
    "cancelled",  # by a client, or because no client was left
    "poison",  # every engine that tried it failed
    "lost",  # the broker no longer knows it
]
# the paths whose requests become jobs, by the first word of a job's id
ENDPOINTS = {
    "gen": "/generate",
    "score": "/score",
    "cmpl": "/v1/completions",
    "chatcmpl": "/v1/chat/completions",
    "img": "/v1/images/generations",
    "edit": "/v1/images/edits",
    "var": "/v1/images/variations",
}
State = Literal["waiting", "running", "finished", "failed", "cancelled"]


def endpoint_of(job_id: str) -> str:
    """The path of the HTTP request that a job comes from, for metrics and logs: one of `ENDPOINTS`."""
    return ENDPOINTS.get(job_id.partition("-")[0], "/generate")


@dataclass(frozen=True)
class PictureForm:
    """How a job's pictures are answered."""

    png: bool = False  # whether the answer has pictures beside ids
    scale: int = 1  # pixels are enlarged so many times
    partial_images: int = 0  # pictures of each sample in the stream, before the last
    recoloured: int | None = None  # given pixels whose colour was none of the palette's; None: no picture was given


@dataclass(frozen=True)
class Job:
    """A plan in the queue. Times here and in log entries are Unix times in seconds, by the broker's clock."""

    id: str
    plan: Plan | ScorePlan
    submitted_at: float
    expected_seconds: float | None = None  # forecast from submission to the end; None if no engine had reported
    detached: bool = False  # continues when its client has disconnected
    request_id: str | None = None  # of the HTTP request, for logs
    trace_id: str | None = None  # of the HTTP request's trace, for logs
    trace_context: Mapping[str, str] | None = None  # of the HTTP request's span, where traces are on
    picture: PictureForm | None = None  # for image models
    candidates: int = 0  # number of most likely classes that log entries give for intermediate tokens


@dataclass(frozen=True, slots=True)
class Started:
    """An engine has claimed the job, as the first one or in a takeover."""

    at: float
    fingerprint: str = ""  # kind of machine and arithmetic of the engine


@dataclass(frozen=True, slots=True)
class Revealed:
    """One network evaluation revealed a group of one sample."""

    at: float
    reveal: Reveal
    lane: int = 0  # 0: drawn at the state of the log; i: after i accepted drafts. Every 0 begins a round.
    candidates: tuple[Candidates, ...] = ()  # for the tokens that are intermediate after it, if the job requests them
    saved: int = 0  # number of planned evaluations that it makes needless: the sample has ended in its block


@dataclass(frozen=True, slots=True)
class Scored:
    """Some network evaluations read a pass of a score."""

    at: float
    readout: Readout


@dataclass(frozen=True, slots=True)
class Finished:
    """Every sample is complete, or the score has read as much as it needs."""

    at: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The job ends without an answer."""

    at: float
    reason: FailureReason
    message: str  # for the client


LogEntry = Started | Revealed | Scored | Finished | Failed


def evaluations_in(entry: LogEntry) -> int:
    """Number of network evaluations that an entry holds the results of."""
    return entry.readout.evaluations if isinstance(entry, Scored) else int(isinstance(entry, Revealed))


def evaluations_off(entry: LogEntry) -> int:
    """Number of planned network evaluations that are not left any more after an entry: done, or needless."""
    return evaluations_in(entry) + (entry.saved if isinstance(entry, Revealed) else 0)


def state_at(end: LogEntry) -> State:
    """The state of a job from the last entry of its log."""
    if isinstance(end, Finished):
        return "finished"
    return "cancelled" if isinstance(end, Failed) and end.reason == "cancelled" else "failed"


def cancelled(at: float) -> Failed:
    """The end of a job that no client needs."""
    return Failed(at, "cancelled", "the request was cancelled")


def lost(at: float) -> Failed:
    """The end of a job that the broker no longer knows."""
    return Failed(at, "lost", "the request is lost: the queue does not know it any more")


def poisoned(at: float) -> Failed:
    """The end of a job that every engine failed on."""
    return Failed(at, "poison", "the request brought down every engine that tried it, and was given up")


@dataclass
class JobProgress:
    """Times and counts of a job, updated by each entry of its log. A time is None until it is known."""

    started_at: float | None = None  # the first engine claimed it
    first_unmask_at: float | None = None
    last_unmask_at: float | None = None
    ended_at: float | None = None
    rounds: int = 0  # evaluations one after the other; for a score, entries with a readout
    engines: list[str] = field(default_factory=list)  # fingerprints of the engines that claimed it, in order

    def note(self, entry: LogEntry) -> None:
        match entry:
            case Started():
                self.engines.append(entry.fingerprint)
                self.started_at = self.started_at or entry.at
            case Revealed():
                self.rounds += entry.lane == 0
                self.first_unmask_at = self.first_unmask_at or entry.at
                self.last_unmask_at = entry.at
            case Scored():
                self.rounds += 1
            case Finished() | Failed():
                self.ended_at = entry.at

    @property
    def fingerprint(self) -> str:
        """The kind of machine and arithmetic that the tokens come from; "mixed" if there were several."""
        return "mixed" if len(set(self.engines)) > 1 else next(iter(self.engines), "")


def milliseconds_between(begin: float, end: float | None) -> float | None:
    """Milliseconds from one time to another, at least 0: processes estimate a shared clock to about a millisecond."""
    return None if end is None else round(1000 * max(0.0, end - begin), 3)
