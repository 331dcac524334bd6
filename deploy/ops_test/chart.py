"""The run as a picture: what came in and went out, how long it took, what waited, alerts, and the faults."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from deploy.ops_test.checks import ranged
from deploy.ops_test.load import Posted
from deploy.ops_test.prometheus import Prometheus

_FAULT, _IN, _OUT, _WARN = "#d9d9e3", "#1f5fa8", "#2a8c55", "#c2402d"


def draw(
    path: Path,
    prometheus: Prometheus,
    posted: Sequence[Posted],
    acts: Sequence[tuple[str, float, float]],
    alerts: dict[str, list[float]],
    span: tuple[float, float],
) -> None:
    """Write the PNG; times are seconds since 1970, shown from the start."""
    start, end = span
    figure, (rate, latency, queue, firing) = plt.subplots(
        4, 1, figsize=(11, 9), sharex=True, height_ratios=(3, 3, 2, 2), layout="constrained"
    )
    edges = np.arange(0, end - start + 5, 5)
    counts = np.histogram([one.answered - start for one in posted], edges)[0] / 5
    rate.step(edges[1:], counts, color=_IN, label="accepted (cameras' count)")
    done = _sum(prometheus, "sum(rate(inlier_inspections_total[5s]))", span)
    rate.plot(*done, color=_OUT, alpha=0.8, label="ended (workers' metrics)")
    rate.set_ylabel("images a second")
    rate.set_ylim(0, 1.35 * max(counts.max(), 1))
    rate.legend(loc="upper right", frameon=False, ncols=2)
    latency.scatter([one.sent - start for one in posted], [one.answered - one.sent for one in posted],
                    s=5, color=_IN, alpha=0.5)  # fmt: skip
    latency.set_yscale("log")
    latency.set_ylabel("answer after, s")
    queue.plot(*_sum(prometheus, "max(inlier_queue_depth)", span), color=_WARN)
    queue.set_ylabel("images waiting")
    for number, (_, times) in enumerate(sorted(alerts.items())):
        bars = [(moment - start, 1.0) for moment in times]
        firing.broken_barh(bars, (number - 0.35, 0.7), color=_WARN)
    firing.set_yticks(range(len(alerts)), [name.removeprefix("Inlier") for name in sorted(alerts)])
    firing.set_ylabel("alerts firing")
    firing.set_xlabel("seconds")
    for number, (_, begin, finish) in enumerate(acts, 1):
        for axis in (rate, latency, queue, firing):
            axis.axvspan(begin - start, finish - start, color=_FAULT, zorder=0, lw=0)
        rate.annotate(
            f"{number}", ((begin + finish) / 2 - start, 1.02), xycoords=("data", "axes fraction"), ha="center"
        )
    names = "   ".join(f"{number} {name}" for number, (name, _, _) in enumerate(acts, 1))
    half = names.find("   4 ")
    figure.suptitle(f"{names[:half]}\n{names[half:].strip()}", fontsize=9)
    for axis in (rate, latency, queue, firing):
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(0, end - start)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _sum(
    prometheus: Prometheus, expression: str, span: tuple[float, float]
) -> tuple[list[float], list[float]]:
    found = ranged(prometheus, expression, *span)
    values = found[0]["values"] if found else []
    return [float(moment) - span[0] for moment, _ in values], [float(value) for _, value in values]
