"""The chart: overkill and escape by day, with and without retraining, and what happened."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from service.recipes.intervals import wilson

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Okabe and Ito's colours, told apart by everybody; marker and line differ as well.
LOOKS = {
    "without": {"color": "#D55E00", "marker": "s", "ls": "--", "label": "first model kept"},
    "with": {"color": "#0072B2", "marker": "o", "ls": "-", "label": "retrained"},
}
PANELS = (
    ("overkill", "good parts rejected\n(overkill)"),
    ("review_good", "good parts sent\nto a person"),
    ("escape", "defective parts passed\n(escape)"),
)
AROUND = 1
"""Days on either side that a point of the line is the share of."""


def draw(days: Sequence[dict[str, Any]], marks: Sequence[tuple[float, str]], title: str, out: Path) -> None:
    """PNG and SVG beside each other; `marks` are events, numbered on the chart and explained below it."""
    plt.rcParams.update({"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "month"})
    figure, panels = plt.subplots(len(PANELS), 1, sharex=True, figsize=(10, 9.6))
    for panel, (measure, name) in zip(panels, PANELS, strict=True):
        for arm, look in LOOKS.items():
            _line(panel, [line for line in days if line["retraining"] == arm], measure, look)
        for day, _ in marks:
            panel.axvline(day, color="#777777", lw=0.8, zorder=0)
        panel.set_ylabel(name)
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
        panel.grid(axis="y", color="#e4e4e4", lw=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    last = max(line["day"] for line in days)
    panels[-1].set_xlim(0.5, last + 0.7)
    panels[-1].set_xticks(range(1, last + 1, 1 if last < 20 else 3))
    panels[-1].set_xlabel("day")
    panels[0].legend(loc="upper left", frameon=False, ncols=2)
    _number(panels[0], marks)
    figure.suptitle(title, x=0.02, ha="left", fontsize=12)
    words = "\n".join(f"{number}  {text}" for number, (_, text) in enumerate(marks, 1))
    figure.text(0.02, 0.012, words, fontsize=9, va="bottom", linespacing=1.35)
    figure.tight_layout(rect=(0, 0.03 + 0.0185 * len(marks), 1, 0.99))
    for suffix in (".png", ".svg"):
        metadata = {"Date": None} if suffix == ".svg" else None
        figure.savefig(out.with_suffix(suffix), dpi=110, facecolor="white", metadata=metadata)
    plt.close(figure)


def _line(panel: Any, lines: Sequence[dict[str, Any]], measure: str, look: dict[str, Any]) -> None:
    """Each day as a mark; the share of three days as a line, with its 95 % interval."""
    days = np.array([line["day"] for line in lines])
    of = np.array([line[f"{measure}_of"] for line in lines])
    hits = np.array([line[measure] for line in lines])
    panel.plot(days, hits / of, look["marker"], color=look["color"], ms=3.5, alpha=0.55, mec="none")
    around = [slice(max(0, row - AROUND), row + AROUND + 1) for row in range(len(days))]
    shares = [hits[some].sum() / of[some].sum() for some in around]
    bounds = np.array([wilson(hits[some].sum(), of[some].sum()) for some in around])
    panel.plot(days, shares, look["ls"], color=look["color"], lw=2, label=look["label"])
    panel.fill_between(days, bounds[:, 0], bounds[:, 1], color=look["color"], alpha=0.14, lw=0)


def _number(panel: Any, marks: Sequence[tuple[float, str]]) -> None:
    """Numbers above the panel; what would overlap goes one row higher."""
    taken: list[float] = []
    for number, (day, _) in enumerate(marks, 1):
        row = sum(abs(day - other) < 0.8 for other in taken[-2:])
        taken.append(day)
        place = (day, 1.02 + 0.085 * row)
        panel.annotate(
            str(number), place, xycoords=("data", "axes fraction"), ha="center", fontsize=9, weight="bold"
        )
