"""Stored scores as a mirrored histogram: what is good or not known upwards, what is defective downwards."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.bundle import Thresholds
from service.recipes.whatif import Stored

LOW, ABOVE = -3.0, 3.0
"""A typical part scores 0 with spread 1; shown beyond the reject limit."""
_BINS = 72
_MOST_TICKS = 16
_MOST = 0.85  # of the height, on one side of the axis
_FILLED = 0.88  # of a bin's width


@dataclass(frozen=True)
class Bar:
    """One bin; everything in percent of the plot."""

    left: float
    width: float
    good: float
    unreviewed: float
    defective: float
    counts: tuple[int, int, int]  # good, unreviewed, defective
    first: float  # lowest score of it


@dataclass(frozen=True)
class ScoreChart:
    """A histogram over a linear axis from `low` to `high`; the outermost bins hold what lies beyond."""

    low: float
    high: float
    bars: Sequence[Bar]
    base: float  # percent of the height that is above the axis
    ticks: Sequence[int]
    totals: tuple[int, int, int]

    def at(self, score: float) -> float:
        """Percent of the width."""
        return round(100 * (min(max(score, self.low), self.high) - self.low) / (self.high - self.low), 2)


def draw(stored: Stored, *limits: Thresholds) -> ScoreChart:
    """The scores, on an axis that holds some limits with room to move them."""
    # Steps of a half, so that the axis does not change with every hundredth of a limit.
    low = float(min(LOW, *(np.floor(2 * each.review) / 2 - 1 for each in limits)))
    high = float(max(np.ceil(2 * each.reject) / 2 + ABOVE for each in limits))
    edges = np.linspace(low, high, _BINS + 1)
    kept = np.clip(stored.scores, low, high)
    good, defective = stored.state == "good", stored.state == "defective"
    counts = np.array([np.histogram(kept[of], edges)[0] for of in (good, ~(good | defective), defective)])
    up, down = counts[0] + counts[1], counts[2]
    # Bars grow with the root of the count, so that a single part is seen beside thousands.
    above, below = np.sqrt(up.max()), np.sqrt(down.max())
    scale = 100 / max(above + below, max(above, below) / _MOST, 1.0)
    each = scale / np.sqrt(np.maximum(np.array([up, up, down]), 1))  # height of one part, percent
    bars = [
        Bar(
            left=round(100 * number / _BINS, 2),
            width=round(_FILLED * 100 / _BINS, 2),
            good=round(float(heights[0]), 2),
            unreviewed=round(float(heights[1]), 2),
            defective=round(float(heights[2]), 2),
            counts=(int(counts[0][number]), int(counts[1][number]), int(counts[2][number])),
            first=float(edges[number]),
        )
        for number, heights in enumerate((each * counts).T)
        if heights.any()
    ]
    base = min(100 * _MOST, max(100 * (1 - _MOST), 100 - scale * float(below)))
    good_count, unreviewed, bad = (int(count) for count in counts.sum(axis=1))
    return ScoreChart(low, high, bars, round(base, 1), _ticks(low, high), (good_count, unreviewed, bad))


def _ticks(low: float, high: float) -> list[int]:
    step = math.ceil((high - low) / _MOST_TICKS)
    return [score for score in range(math.ceil(low), math.floor(high) + 1) if score % step == 0]
