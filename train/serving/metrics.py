"""What a server counts, in Prometheus' form; a registry of its own, so that two servers in a process do not mix."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PREFIX = "irl_lens"
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of requests, traces and batches."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        to: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(f"{PREFIX}_requests", "Requests answered", ["path", "status"], **to)
        self.seconds = Histogram(f"{PREFIX}_request_seconds", "From request to answer", ["path"], buckets=SECONDS, **to)
        self.waiting = Gauge(f"{PREFIX}_waiting_traces", "Solutions that wait before the model", **to)
        self.waited = Histogram(f"{PREFIX}_waited_seconds", "Time of a request in the queue", buckets=SECONDS, **to)
        self.traces = Counter(f"{PREFIX}_traces", "Solutions scored", **to)
        self.tokens = Counter(f"{PREFIX}_tokens", "Tokens read, prompts included", **to)
        self.batch_traces = Histogram(f"{PREFIX}_batch_traces", "Solutions of a batch", buckets=SIZES, **to)
        self.model_seconds = Counter(f"{PREFIX}_model_seconds", "Time spent on batches", **to)

    def batch(self, traces: int, tokens: int, seconds: float) -> None:
        """Count a batch."""
        self.traces.inc(traces)
        self.tokens.inc(tokens)
        self.batch_traces.observe(traces)
        self.model_seconds.inc(seconds)

    def text(self) -> bytes:
        """All of them as Prometheus reads them."""
        return generate_latest(self.registry)
