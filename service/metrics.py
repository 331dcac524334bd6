"""Prometheus metrics of one app; labels never carry ids, and never more values than a line has."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per metric that no dashboard reads

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_MAX_VALUES = 100


class BoundedLabel:
    """Lets the first 100 values of a client-chosen label through; the rest count as `other`."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, value: str | None) -> str:
        if value is None:
            return ""
        if value not in self._known:
            if len(self._known) >= _MAX_VALUES:
                return "other"
            self._known.add(value)
        return value


class Metrics:
    """All metrics, on a registry of their own so that several apps can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.recipe, self.line = BoundedLabel(), BoundedLabel()
        self.inspections = Counter(
            "inlier_inspections",
            "Inspections finished, by verdict.",
            ["recipe", "line", "verdict"],
            registry=self.registry,
        )
        self.accepted = Counter("inlier_accepted", "Inspections accepted.", registry=self.registry)
        self.errors = Counter(
            "inlier_errors",
            "Accepted inspections that ended in ERROR, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.rejections = Counter(
            "inlier_rejections",
            "Requests answered with a problem, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.stage = Histogram(
            "inlier_stage_seconds",
            "Time of one inspection in each stage.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.requests = Histogram(
            "inlier_request_seconds",
            "Time to answer HTTP requests, by route.",
            ["method", "route", "status"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "inlier_batch_size",
            "Images advanced by an engine call.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "inlier_queue_depth", "Images accepted and not yet finished.", registry=self.registry
        )
        self.queue_oldest = Gauge(
            "inlier_queue_oldest_seconds",
            "Age of the oldest image accepted by this process and not yet finished.",
            registry=self.registry,
        )
        self.score = Histogram(
            "inlier_score",
            "Calibrated scores (robust sigmas above a typical part).",
            ["recipe"],
            buckets=(-3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20),
            registry=self.registry,
        )
        self.deliveries = Counter(
            "inlier_deliveries",
            "Attempts to tell a sink: delivered, failed, unreachable, or dead: given up.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.outbox_depth = Gauge(
            "inlier_outbox_depth", "Messages that wait for their sinks.", registry=self.registry
        )
        self.outbox_dead = Gauge(
            "inlier_outbox_dead", "Messages that were given up and not sent again.", registry=self.registry
        )
        self.outbox_oldest = Gauge(
            "inlier_outbox_oldest_seconds", "Age of the oldest message that waits.", registry=self.registry
        )
        self.model = Gauge(
            "inlier_model_info",
            "The model that serves, as labels.",
            ["name", "version", "hash", "device"],
            registry=self.registry,
        )
        self.ready = Gauge("inlier_ready", "1 while inspections are accepted.", registry=self.registry)
