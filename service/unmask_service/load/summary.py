"""Figures of a load test, under the names that `vllm bench serve --save-result` gives them where they mean the same."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from unmask_service.load.client import LEFT, Record
from unmask_service.load.errors import LoadError
from unmask_service.load.run import LoadRun

PERCENTILES = (50, 90, 99)
Figures = dict[str, Any]

# what an objective may bound, by the names that it may be called
OBJECTIVES = {
    "first_unmask": "ttft",
    "ttft": "ttft",
    "between_unmasks": "itl",
    "itl": "itl",
    "e2e": "e2el",
    "e2el": "e2el",
}


@dataclass(frozen=True)
class Objective:
    """A bound that a good request keeps: `metric` is ttft, itl (its mean within the request) or e2el."""

    metric: str
    milliseconds: float

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Read "first_unmask:500".

        Raises:
            LoadError: it is something else.
        """
        name, _, value = text.partition(":")
        try:
            found = cls(OBJECTIVES[name], float(value))
        except (KeyError, ValueError):
            known = ", ".join(OBJECTIVES)
            raise LoadError(f"--goodput: {text!r} is not NAME:MILLISECONDS with one of {known}") from None
        if not 0 <= found.milliseconds < float("inf"):
            raise LoadError(f"--goodput: {text!r} bounds nothing")
        return found

    def kept(self, record: Record) -> bool:
        """Whether a completed request keeps it. What was not streamed says nothing of its unmasks and does not."""
        values: Mapping[str, Sequence[float]] = {
            "ttft": [] if record.first_unmask is None else [record.first_unmask],
            "itl": record.between_unmasks,
            "e2el": [record.seconds],
        }
        seen = values[self.metric]
        if not seen:  # a stream of a single unmask has nothing between
            return self.metric == "itl" and record.first_unmask is not None
        return 1000 * sum(seen) / len(seen) <= self.milliseconds


def summarise(run: LoadRun, objectives: Sequence[Objective] = ()) -> Figures:
    """All figures of a run, finished or not; null where there is nothing to measure."""
    completed = [record for record in run.records if record.completed]
    seconds = run.seconds
    totals = {name: _total(completed, *place) for name, place in _TOTALS.items()}
    good = sum(all(objective.kept(record) for objective in objectives) for record in completed)
    return {
        "request_rate": "inf" if run.load.request_rate is None else run.load.request_rate,
        "burstiness": 1.0,
        "max_concurrency": run.load.concurrency,
        "duration": seconds,
        **outcomes(run.records),
        **totals,
        "request_throughput": len(completed) / seconds,
        "request_goodput": good / seconds if objectives else None,
        "output_throughput": totals["total_output_tokens"] / seconds,
        "total_token_throughput": (totals["total_input_tokens"] + totals["total_output_tokens"]) / seconds,
        "evaluation_throughput": totals["total_network_evaluations"] / seconds,
        "max_concurrent_requests": run.peak,
        **latencies(completed),
        "median_eta_error_percent": eta_error(completed),
        "client_cpu_share": run.cpu_seconds / seconds,
        "max_client_lag_ms": 1000 * run.lag,
    }


_TOTALS = {
    "total_input_tokens": ("usage", "prompt_tokens"),
    "total_output_tokens": ("usage", "completion_tokens"),
    "total_network_evaluations": ("sampling", "network_evaluations"),
    "total_sub_tokens": ("sampling", "sub_tokens"),
}


def _total(records: Iterable[Record], part: str, name: str) -> int:
    return round(sum(record.counted(part, name) for record in records))


def outcomes(records: Sequence[Record]) -> Figures:
    """How requests ended, and the first message of each kind of error. Those left on purpose are no failures."""
    kinds = Counter(record.outcome for record in records)
    completed, left = sum(record.completed for record in records), kinds.pop(LEFT, 0)
    kinds.pop("completed", None)
    return {
        "num_prompts": len(records),
        "completed": completed,
        "failed": kinds.total(),
        "left": left,
        "errors_by_kind": dict(sorted(kinds.items())),
        "error_messages": {record.outcome: record.message for record in reversed(records) if record.message},
    }


def latencies(completed: Sequence[Record]) -> Figures:
    """Milliseconds: ttft to the first unmask, itl between a sample's unmasks, e2el end to end, queue (the server's)."""
    values = {
        "ttft": [record.first_unmask for record in completed if record.first_unmask is not None],
        "itl": chain.from_iterable(record.between_unmasks for record in completed),
        "e2el": [record.seconds for record in completed],
        "queue": [record.counted("timings", "queue_ms") / 1000 for record in completed],
    }
    return {key: value for name, seconds in values.items() for key, value in distribution(name, seconds).items()}


def distribution(name: str, seconds: Iterable[float]) -> dict[str, float | None]:
    """mean_NAME_ms, median_NAME_ms, std_NAME_ms and the percentiles, interpolated linearly as numpy does."""
    values = 1000 * np.fromiter(seconds, dtype=np.float64)
    keys = [f"mean_{name}_ms", f"median_{name}_ms", f"std_{name}_ms", *(f"p{p}_{name}_ms" for p in PERCENTILES)]
    if not len(values):
        return dict.fromkeys(keys)
    found = (values.mean(), np.median(values), values.std(), *np.percentile(values, PERCENTILES))
    return dict(zip(keys, map(float, found), strict=True))


def eta_error(completed: Sequence[Record]) -> float | None:
    """The median error in percent of what `start` said of the time to the end; None where no server said so."""
    errors = [
        abs(record.eta - (record.seconds - record.planned_at)) / (record.seconds - record.planned_at)
        for record in completed
        if record.eta is not None and record.planned_at is not None and record.seconds > record.planned_at
    ]
    return 100 * float(np.median(errors)) if errors else None
