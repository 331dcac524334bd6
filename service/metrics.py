"""Prometheus metrics of one process; labels never carry ids, and never more values than a plant has.

docs/metrics.md lists them, and a test compares the two.
"""

import shutil
from pathlib import Path

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
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
_SCORES = (-3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20)
_BRIGHTNESS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
_SHARPNESS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)


class BoundedLabel:
    """Lets the first values of a client-chosen label through; the rest count as `other`."""

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._known: set[tuple[str | None, ...]] = set()

    def __call__(self, value: str | None) -> str:
        return self.together(value)[0]

    def together(self, *values: str | None) -> tuple[str, ...]:
        """The same for labels that belong together, as a line and its stations do."""
        if values not in self._known:
            if len(self._known) >= self._most:
                return ("other",) * len(values)
            self._known.add(values)
        return tuple(value or "" for value in values)


class Metrics:
    """All metrics, on a registry of their own so that several apps can live in one process.

    `api` and `runs` say what the process does; what only the other kind counts is not exposed.
    """

    def __init__(self, *, api: bool = True, runs: bool = True) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.recipe, self.line, self.station = BoundedLabel(), BoundedLabel(), BoundedLabel(500)
        self._process()
        self._inspections()
        self._requests(self.registry if api else None)
        self._work(self.registry if runs else None)
        self._people(self.registry if api else None)
        self._outbox(self.registry if api else None)
        self._shadows(self.registry if runs else None)

    def _process(self) -> None:
        own = self.registry
        self.build = Gauge(
            "inlier_build_info", "The program's version, as a label.", ["version"], registry=own
        )
        self.ready = Gauge("inlier_ready", "1 while this process does its part.", registry=own)
        self.disk_free = Gauge(
            "inlier_disk_free_bytes", "Space left where rows and images are kept.", ["folder"], registry=own
        )
        self.disk_size = Gauge(
            "inlier_disk_size_bytes",
            "Size of the disk where rows and images are kept.",
            ["folder"],
            registry=own,
        )
        self.model = Gauge(
            "inlier_model_info",
            "A model that this process has loaded, as labels.",
            ["name", "version", "hash", "device"],
            registry=own,
        )
        self.model_created = Gauge(
            "inlier_model_created_timestamp_seconds",
            "When a loaded model was trained.",
            ["name", "version", "hash"],
            registry=own,
        )
        self.recipe_model = Gauge(
            "inlier_recipe_model_info",
            "The model that inspects a recipe, as labels.",
            ["recipe", "name", "version", "hash"],
            registry=own,
        )

    def _inspections(self) -> None:
        """What ends is counted by the process that ended it."""
        own = self.registry
        self.inspections = Counter(
            "inlier_inspections",
            "Inspections finished, by verdict.",
            ["recipe", "line", "verdict"],
            registry=own,
        )
        self.errors = Counter(
            "inlier_errors",
            "Accepted inspections that ended without a verdict of the model, by reason.",
            ["reason"],
            registry=own,
        )
        self.stage = Histogram(
            "inlier_stage_seconds",
            "Time of one inspection in each stage.",
            ["stage"],
            buckets=SECONDS,
            registry=own,
        )
        self.score = Histogram(
            "inlier_score",
            "Calibrated scores (robust sigmas above a typical part).",
            ["recipe"],
            buckets=_SCORES,
            registry=own,
        )
        self.brightness = Histogram(
            "inlier_brightness",
            "Mean gray value of the images, 0 to 1.",
            ["line", "station"],
            buckets=_BRIGHTNESS,
            registry=own,
        )
        self.sharpness = Histogram(
            "inlier_sharpness",
            "Variance of the Laplacian of the gray images, a measure of focus.",
            ["line", "station"],
            buckets=_SHARPNESS,
            registry=own,
        )
        self.queue_depth = Gauge("inlier_queue_depth", "Images accepted and not yet finished.", registry=own)
        self.queue_oldest = Gauge(
            "inlier_queue_oldest_seconds",
            "Age of the oldest image accepted and not yet finished.",
            ["priority"],
            registry=own,
        )

    def _requests(self, own: CollectorRegistry | None) -> None:
        self.accepted = Counter(
            "inlier_accepted", "Images accepted, by where they come from.", ["line", "station"], registry=own
        )
        self.rejections = Counter(
            "inlier_rejections", "Requests answered with a problem, by reason.", ["reason"], registry=own
        )
        self.requests = Histogram(
            "inlier_request_seconds",
            "Time to answer HTTP requests, by route.",
            ["method", "route", "status"],
            buckets=SECONDS,
            registry=own,
        )

    def _work(self, own: CollectorRegistry | None) -> None:
        self.running = Gauge("inlier_running", "Images that this process has taken to run.", registry=own)
        self.batch_size = Histogram(
            "inlier_batch_size", "Images advanced by an engine call.", buckets=_BATCHES, registry=own
        )
        self.redeliveries = Counter(
            "inlier_redeliveries",
            "Attempts at an image after its first: it failed, or its worker was lost.",
            registry=own,
        )
        self.dead_letters = Counter(
            "inlier_dead_letters", "Images that workers gave up, by reason.", ["reason"], registry=own
        )

    def _people(self, own: CollectorRegistry | None) -> None:
        self.reviews = Counter(
            "inlier_reviews",
            "Decisions of people, by what the model had said.",
            ["recipe", "verdict", "decision"],
            registry=own,
        )
        self.review_backlog = Gauge(
            "inlier_review_backlog", "Inspections that wait for a person.", registry=own
        )
        self.review_oldest = Gauge(
            "inlier_review_oldest_seconds",
            "Age of the oldest inspection that waits for a person.",
            registry=own,
        )
        self.retraining = Gauge(
            "inlier_retraining_timestamp_seconds",
            "When the newest run that retrains ended so; of one that is running, when it began.",
            ["recipe", "state"],
            registry=own,
        )
        self.escape = Gauge(
            "inlier_escape_ratio",
            "Estimated share of defective parts that pass, and its 95 % interval.",
            ["recipe", "bound"],
            registry=own,
        )
        self.overkill = Gauge(
            "inlier_overkill_ratio",
            "Estimated share of good parts that are rejected, and its 95 % interval.",
            ["recipe", "bound"],
            registry=own,
        )

        self.drift_psi = Gauge(
            "inlier_drift_psi",
            "Population-stability index of the newest inspections, by what is compared.",
            ["recipe", "trait"],
            registry=own,
        )
        self.drift_alarm = Gauge(
            "inlier_drift_alarm",
            "1 while the index is beyond what is usual and what is chance.",
            ["recipe", "trait"],
            registry=own,
        )

    def _outbox(self, own: CollectorRegistry | None) -> None:
        self.deliveries = Counter(
            "inlier_deliveries",
            "Attempts to tell a sink: delivered, failed, unreachable, or dead: given up.",
            ["kind", "outcome"],
            registry=own,
        )
        self.outbox_depth = Gauge("inlier_outbox_depth", "Messages that wait for their sinks.", registry=own)
        self.outbox_dead = Gauge(
            "inlier_outbox_dead", "Messages that were given up and not sent again.", registry=own
        )
        self.outbox_oldest = Gauge(
            "inlier_outbox_oldest_seconds", "Age of the oldest message that waits.", registry=own
        )

    def _shadows(self, own: CollectorRegistry | None) -> None:
        def count(name: str, says: str) -> Counter:
            return Counter(f"inlier_shadow_{name}", says, ["recipe"], registry=own)

        self.shadow_scored = count("scored", "Live images scored by shadows.")
        self.shadow_skipped = count("skipped", "Live images that shadows had no time or were not loaded for.")
        self.shadow_failed = count("failed", "Live images that shadows could not score.")
        self.shadow_disagreements = count(
            "disagreements", "Scored images whose verdict by the shadow differs."
        )
        self.shadow_loaded = Gauge(
            "inlier_shadow_loaded",
            "1 if the recipe's shadow is loaded, 0 if it cannot be.",
            ["recipe"],
            registry=own,
        )

    def decided(self, recipe: str, verdict: str | None, decision: str) -> None:
        """Count what a person said of an inspection."""
        self.reviews.labels(self.recipe(recipe), verdict or "", decision).inc()

    def watch_disk(self, name: str, folder: Path) -> None:
        """Report the space of a folder's disk, looked up whenever somebody asks."""
        self.disk_free.labels(name).set_function(lambda: _space(folder)[0])
        self.disk_size.labels(name).set_function(lambda: _space(folder)[1])


def _space(folder: Path) -> tuple[float, float]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:  # the disk is gone; what else there is to say of this process should still be heard
        return 0.0, float("nan")
    return usage.free, usage.total
