"""What Prometheus reads: counters, gauges and histograms of one process, in a registry of their own."""

from collections.abc import Callable, Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

Outcome = Literal["finished", "cancelled", "failed", "rejected"]

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)
EVALUATION_BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of a process that serves one model.

    Attributes:
        evaluation_seconds: wall-clock time of one network evaluation, whatever its number of samples.
        evaluations: network evaluations of samples (a shared evaluation of k samples counts k).
        sub_tokens: sub-tokens revealed.
        tokens: tokens unmasked, of finished generations.
        idle_steps: time steps that ancestral schedules skipped, of finished generations.
        queue_seconds: from submission to an engine.
        first_unmask_seconds: from submission to the first reveal.
        request_seconds: from submission to the end, of finished generations.
    """

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self.model = model
        ProcessCollector(namespace="unmask", registry=self.registry)
        self.evaluation_seconds = self._histogram(
            "unmask_evaluation_seconds", "Duration of one network evaluation", EVALUATION_BUCKETS
        )
        self.evaluations = self._counter("unmask_network_evaluations", "Network evaluations, counted a sample")
        self.sub_tokens = self._counter("unmask_sub_tokens", "Sub-tokens revealed")
        self.tokens = self._counter("unmask_tokens", "Tokens unmasked by finished generations")
        self.idle_steps = self._counter("unmask_idle_steps_avoided", "Idle time steps that were skipped")
        self.queue_seconds = self._histogram("unmask_queue_seconds", "Submission to the start by an engine")
        self.first_unmask_seconds = self._histogram("unmask_first_unmask_seconds", "Submission to the first reveal")
        self.request_seconds = self._histogram("unmask_request_seconds", "Submission to the last reveal")
        self._requests = Counter(
            "unmask_requests",
            "Requests by outcome; reason says why one failed or was rejected",
            ["model", "outcome", "reason"],
            registry=self.registry,
        )

    def count_request(self, outcome: Outcome, reason: str = "") -> None:
        """One request has come to its end."""
        self._requests.labels(self.model, outcome, reason).inc()

    def watch(self, running: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Read the number of running and waiting requests whenever the metrics are read."""
        gauges = {"running": running, "waiting": waiting}
        for state, read in gauges.items():
            gauge = Gauge(f"unmask_requests_{state}", f"Requests that are {state}", registry=self.registry)
            gauge.set_function(read)

    def describe(self, build: Mapping[str, str], model: Mapping[str, str]) -> None:
        """Say once which build serves which model."""
        Info("unmask_build", "The software that runs", registry=self.registry).info(dict(build))
        Info("unmask_model", "The model that is served", registry=self.registry).info(dict(model))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ["model"], registry=self.registry).labels(self.model)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = LATENCY_BUCKETS) -> Histogram:
        return Histogram(name, text, ["model"], buckets=buckets, registry=self.registry).labels(self.model)
