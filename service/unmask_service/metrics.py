"""The metrics for Prometheus: counters, gauges and histograms of one process, in a registry of their own."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

# prometheus_client would write its values into files there; a process of Unmask exports its own metrics
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
os.environ.pop("prometheus_multiproc_dir", None)

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics import MetricWrapperBase
from unmask_diffusion import Plan, ScorePlan

from unmask_service.forecast import Load, Tick

disable_created_metrics()  # type: ignore[no-untyped-call]  # they are one more gauge for each counter

Outcome = Literal["finished", "cancelled", "failed", "rejected"]
Phase = Literal["trunk", "draw", "other", "publish"]
Metric = TypeVar("Metric", Counter, Gauge, Histogram, Info)

SAMPLE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHARE_BUCKETS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
BROKER_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)
EVALUATION_BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8)
MOST_CLIENTS = 100  # names of API keys that become values of a label
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Registry(CollectorRegistry):
    """The metrics of one process: those of the process itself, and families that its models share."""

    def __init__(self) -> None:
        super().__init__()
        ProcessCollector(namespace="unmask", registry=self)
        self._families: dict[str, Any] = {}
        self._clients: set[str] = set()

    def family(self, kind: type[Metric], name: str, text: str, labels: Sequence[str], **more: Any) -> Metric:  # noqa: ANN401
        """The family of a name, made when the first model asks for it."""
        if name not in self._families:
            self._families[name] = kind(name, text, labels, namespace="unmask", registry=self, **more)
        found: Metric = self._families[name]
        return found

    def client_label(self, name: str) -> str:
        """The label for a client: its name for the first `MOST_CLIENTS`, the same label for all later ones."""
        if len(self._clients) < MOST_CLIENTS:
            self._clients.add(name)
        return name if name in self._clients else "(others)"


class Metrics:
    """The metrics of one model in a process that serves it or works for it; docs/metrics.md lists them."""

    def __init__(self, model: str, registry: Registry | None = None) -> None:
        self.registry = Registry() if registry is None else registry
        self.model = model
        family, counter, gauge, histogram = self._family, self._counter, self._gauge, self._histogram

        text = "Requests by outcome; reason says why one failed or was rejected"
        self._requests = family(Counter, "requests", text, ["endpoint", "outcome", "reason"])
        text = "Requests by API key's name: accepted, or refused as over its quota (over_quota)"
        self._client_requests = family(Counter, "client_requests", text, ["client", "outcome"])
        text = "Network evaluations planned for accepted requests, by API key's name"
        self._client_evaluations = family(Counter, "client_network_evaluations", text, ["client"])
        self.queue_seconds = histogram("queue_seconds", "Time from submission to the start by an engine")
        self._first_unmask_seconds = histogram("first_unmask_seconds", "Time from submission to the first reveal")
        text = "Time from one tick that reveals something of a request to the next"
        self._between_unmasks_seconds = histogram("between_unmasks_seconds", text)
        self._request_seconds = histogram("request_seconds", "Time from submission to the end, of finished requests")
        self._tokens = counter("tokens", "Tokens unmasked by finished generations")
        self.images = counter("images", "Pictures drawn by finished generations")
        self._scored_tokens = counter("scored_tokens", "Tokens scored")
        self._idle_steps = counter("idle_steps_avoided", "Idle steps that were skipped")

        text = "One network evaluation, whatever its number of samples: trunk, head and draw"
        self._evaluation_seconds = histogram("evaluation_seconds", text, EVALUATION_BUCKETS)
        self._phases_of_evaluation = 0.0
        text = "Time of ticks by phase: trunk, draw (head and draw), other (rest of an evaluation), publish"
        self._phase_seconds = family(Counter, "phase_seconds", text, ["phase"])
        self._ticks = counter("ticks", "Ticks that evaluated something")
        self.evaluations = counter("network_evaluations", "Network evaluations, one for each sample")
        text = (
            "Planned network evaluations that a cancellation, an end token in a block, or a sampler with a bound saved"
        )
        self.evaluations_saved = counter("network_evaluations_saved", text)
        self._sub_tokens = counter("sub_tokens", "Sub-tokens revealed")
        self._batch_samples = histogram("batch_samples", "Samples that share a network evaluation", SAMPLE_BUCKETS)
        text = "Largest less smallest share of masked sub-tokens among the samples of a tick"
        self._batch_noise_spread = histogram("batch_noise_spread", text, SHARE_BUCKETS)
        self._batch_tokens = counter("batch_tokens", "Tokens of the canvases evaluated, lanes included")
        self.tokens_per_tick = gauge("tokens_per_tick", "Tokens that may share a network evaluation")
        self.engine_restarts = counter("engine_restarts", "Engines started to replace a failed one")

        self.rounds = counter("rounds", "Rounds: evaluations one after the other, one for each sample")
        self.lanes = counter("lanes", "Lanes evaluated: states of samples, those of drafts included")
        text = "Drafts verified, by how many reveals ahead they were at most (1, 2, 4 …), and whether they were right"
        self._guesses = family(Counter, "guesses", text, ["ahead", "right"])

        self.takeovers = counter("takeovers", "Requests resumed from another engine's log")
        text = "Appends refused because another worker had taken over the request"
        self.late_writes_refused = counter("late_writes_refused", text)
        self.lease_age_seconds = gauge("lease_age_seconds", "Time since this worker last renewed its leases")
        self.ready = gauge("ready", "1 while requests are accepted and an engine is alive")
        self.broker_up = gauge("broker_up", "1 while the broker can be reached")
        self.broker_up.set(1)
        text = "Round trips to Redis"
        self._broker_seconds = family(Histogram, "broker_seconds", text, ["operation"], buckets=BROKER_BUCKETS)
        text = "Time from a reveal until the API process reads it"
        self.log_lag_seconds = histogram("log_lag_seconds", text, BROKER_BUCKETS)
        self.streams = gauge("streams", "Open streams and open answers that wait")

    def add_queue_gauges(self) -> None:
        """Add the gauges that only processes with clients export; `show_queues` sets them."""

        def total(name: str, text: str) -> Gauge:
            return self.registry.family(Gauge, name, f"{text}, all models", ())

        self.running = total("requests_running", "Requests that engines have claimed")
        self.waiting = total("requests_waiting", "Requests that wait for an engine")
        text = "Network evaluations that running and waiting requests still need"
        self.evaluations_left = total("network_evaluations_at_hand", text)
        text = "Requests of a model by state: running or waiting"
        self._queued = self._family(Gauge, "queue_requests", text, ["state"])
        self._workers = self._gauge("workers", "Engines that are alive")

    def count_request(self, endpoint: str, outcome: Outcome, reason: str = "") -> None:
        """Count a job at its end, or a request that was refused; `endpoint` is one of the broker's `ENDPOINTS`."""
        self._requests.labels(self.model, endpoint, outcome, reason).inc()

    def count_accepted(self, client: str, requests: int, evaluations: int) -> None:
        """Count accepted requests of a client, by its API key's name; nothing where no key is needed."""
        if client:
            label = self.registry.client_label(client)
            self._client_requests.labels(self.model, label, "accepted").inc(requests)
            self._client_evaluations.labels(self.model, label).inc(evaluations)

    def count_over_quota(self, client: str, requests: int) -> None:
        """Count requests that were refused because of their client's quota."""
        self._client_requests.labels(self.model, self.registry.client_label(client), "over_quota").inc(requests)

    def count_reveal(self, at: float, before: float | None, submitted_at: float, sub_tokens: int) -> None:
        """Count a reveal of one sample. Times are Unix times in seconds; `before` is the request's last reveal."""
        self.evaluations.inc()
        self._sub_tokens.inc(sub_tokens)
        if before is None:
            self._first_unmask_seconds.observe(max(0.0, at - submitted_at))
        elif at > before:  # samples and lanes of one tick have the same time
            self._between_unmasks_seconds.observe(at - before)

    def count_plan(self, plan: Plan | ScorePlan, seconds: float) -> None:
        """Count a plan that finished, so many seconds after its submission."""
        self._request_seconds.observe(seconds)
        if isinstance(plan, ScorePlan):
            self._scored_tokens.inc(plan.scored_tokens)
            return
        self._idle_steps.inc(plan.idle_steps)
        self._tokens.inc(plan.canvas.count(None) * len(plan.schedules))

    def count_tick(self, tick: Tick, noise_spread: float) -> None:
        self._ticks.inc()
        self._batch_samples.observe(tick.samples)
        self._batch_tokens.inc(tick.lane_tokens)
        self._batch_noise_spread.observe(noise_spread)

    def count_phase(self, phase: Phase, seconds: float) -> None:
        self._phase_seconds.labels(self.model, phase).inc(seconds)
        self._phases_of_evaluation += 0.0 if phase == "publish" else seconds  # publishing is not a part of evaluations

    def count_evaluation(self, seconds: float) -> None:
        """Count an evaluation; the part that no phase has counted since the last one is `other`."""
        self._evaluation_seconds.observe(seconds)
        self._phase_seconds.labels(self.model, "other").inc(max(0.0, seconds - self._phases_of_evaluation))
        self._phases_of_evaluation = 0.0

    def count_round_trip(self, operation: str, seconds: float) -> None:
        """Count a round trip of the broker: submit, load, append, claim or renew."""
        self._broker_seconds.labels(self.model, operation).observe(seconds)

    def count_rounds(self, rounds: Iterable[tuple[int, int]]) -> None:
        """Count one tick's rounds: for each sample the lanes evaluated and the outcomes accepted.

        All accepted outcomes but the first are right drafts, and the next one is a wrong draft. Later ones are not
        verified.
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

    def show(self, running: float, waiting: float, evaluations: float, engines: float) -> None:
        """Set the gauges of the model's queue, and add to those of all queues."""
        self.running.inc(running)
        self.waiting.inc(waiting)
        self.evaluations_left.inc(evaluations)
        self._queued.labels(self.model, "running").set(running)
        self._queued.labels(self.model, "waiting").set(waiting)
        self._workers.set(engines)

    def describe(self, build: Mapping[str, str], model: Mapping[str, str]) -> None:
        """Export which build serves the model, and what the model is."""
        self.registry.family(Info, "build", "The software that runs", ()).info(dict(build))
        self._family(Info, "model", "The model that is served", []).labels(self.model).info(dict(model))

    def exposition(self) -> bytes:
        return generate_latest(self.registry)

    def _family(self, kind: type[Metric], name: str, text: str, labels: list[str], **more: Any) -> Metric:  # noqa: ANN401
        return self.registry.family(kind, name, text, ["model", *labels], **more)

    def _counter(self, name: str, text: str) -> Counter:
        return self._family(Counter, name, text, []).labels(self.model)

    def _gauge(self, name: str, text: str) -> Gauge:
        return self._family(Gauge, name, text, []).labels(self.model)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = LATENCY_BUCKETS) -> Histogram:
        return self._family(Histogram, name, text, [], buckets=buckets).labels(self.model)


def show_queues(loads: Mapping[Metrics, Load | None]) -> None:
    """Set the gauges of the queues of a process before the metrics are read. A load that is None is not known."""
    unknown = float("nan")
    for totals in loads:
        for gauge in (totals.running, totals.waiting, totals.evaluations_left):
            gauge.set(0)
    for metrics, load in loads.items():
        if load is None:
            metrics.show(unknown, unknown, unknown, unknown)
        else:
            engines = 0 if load.capacity is None else load.engines
            metrics.show(len(load.running), len(load.waiting), load.evaluations, engines)


def metrics_table() -> str:
    """All metrics as a Markdown table, for the documentation: name, kind, labels, meaning."""
    metrics = Metrics("model")
    metrics.add_queue_gauges()
    metrics.describe({}, {})
    # what a registry collects has the labels only of metrics that were counted already
    collectors = metrics.registry._names_to_collectors
    labels = {name: each._labelnames for name, each in collectors.items() if isinstance(each, MetricWrapperBase)}
    rows = ["| metric | kind | labels | what |", "| --- | --- | --- | --- |"]
    for family in metrics.registry.collect():
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        names = ", ".join(f"`{label}`" for label in labels.get(family.name, ()))
        rows.append(f"| `{name}` | {family.type} | {names} | {family.documentation.rstrip('.')} |")
    return "\n".join(rows) + "\n"
