"""What Prometheus reads: counters, gauges and histograms of one process, in a registry of their own."""

from collections.abc import Iterable, Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from unmask_service.forecast import Load

Outcome = Literal["finished", "cancelled", "failed", "rejected"]

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)
EVALUATION_BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of a process that serves one model.

    Attributes:
        evaluation_seconds: wall-clock time of one network evaluation, whatever its number of samples.
        evaluations: network evaluations of samples (a shared evaluation of k samples counts k).
        evaluations_saved: those that were planned, and not done because the client had gone.
        engine_restarts: engines that took the place of one that failed.
        rounds: evaluations of samples one after the other; fewer than `evaluations` where guesses were right.
        lanes: states of samples that were evaluated, those that guesses led to included.
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
        self.evaluations_saved = self._counter(
            "unmask_network_evaluations_saved", "Network evaluations not done because the client had gone"
        )
        self.rounds = self._counter("unmask_rounds", "Evaluations one after the other, counted a sample")
        self.lanes = self._counter("unmask_lanes", "States of samples evaluated, those that guesses led to included")
        self._guesses = Counter(
            "unmask_guesses",
            "Guesses judged, by the most reveals ahead that they were made (1, 2, 4 …), and whether they were right",
            ["model", "ahead", "right"],
            registry=self.registry,
        )
        self.engine_restarts = self._counter("unmask_engine_restarts", "Engines started in the place of a failed one")
        self.sub_tokens = self._counter("unmask_sub_tokens", "Sub-tokens revealed")
        self.tokens = self._counter("unmask_tokens", "Tokens unmasked by finished generations")
        self.idle_steps = self._counter("unmask_idle_steps_avoided", "Idle time steps that were skipped")
        self.queue_seconds = self._histogram("unmask_queue_seconds", "Submission to the start by an engine")
        self.first_unmask_seconds = self._histogram("unmask_first_unmask_seconds", "Submission to the first reveal")
        self.request_seconds = self._histogram("unmask_request_seconds", "Submission to the last reveal")
        self._running = Gauge("unmask_requests_running", "Requests that are running", registry=self.registry)
        self._waiting = Gauge("unmask_requests_waiting", "Requests that are waiting", registry=self.registry)
        self._evaluations_at_hand = Gauge(
            "unmask_network_evaluations_at_hand",
            "Network evaluations that running and waiting requests still need",
            registry=self.registry,
        )
        self._requests = Counter(
            "unmask_requests",
            "Requests by outcome; reason says why one failed or was rejected",
            ["model", "outcome", "reason"],
            registry=self.registry,
        )

    def count_request(self, outcome: Outcome, reason: str = "") -> None:
        """One request has come to its end."""
        self._requests.labels(self.model, outcome, reason).inc()

    def count_rounds(self, rounds: Iterable[tuple[int, int]]) -> None:
        """Count what one tick did for each sample: the lanes evaluated, and the outcomes accepted.

        All accepted outcomes but the first are right guesses, and the one behind them is a wrong one. What lies behind
        that is not judged.
        """
        guesses: dict[tuple[int, str], int] = {}
        for lanes, accepted in rounds:
            self.rounds.inc()
            self.lanes.inc(lanes)
            for ahead in range(1, min(accepted + 1, lanes)):
                key = (1 << (ahead - 1).bit_length(), "true" if ahead < accepted else "false")
                guesses[key] = guesses.get(key, 0) + 1
        for (ahead, right), count in guesses.items():
            self._guesses.labels(self.model, ahead, right).inc(count)

    def show(self, load: Load) -> None:
        """Set the gauges to the work at hand; before the metrics are read."""
        self._running.set(len(load.running))
        self._waiting.set(len(load.waiting))
        self._evaluations_at_hand.set(load.evaluations)

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
