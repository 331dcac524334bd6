"""A shadow beside the active model as its page shows it: both scores on one chart, and where they differ.

Everything here blocks and is called in a thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from service.db.repository import model_life, shadow_scores
from service.db.session import Database
from service.db.tables import InspectionRow, ShadowScoreRow
from service.recipes.whatif import VERDICTS
from service.shadow.comparison import Comparison, Pair, compare

POINTS = 1000  # newest pairs on the chart
SHOWN = 60  # disagreements on the sheet
LEFT, TOP, WIDTH, HEIGHT = 52, 12, 560, 400  # of the chart's inside, in units of its picture
_LOW, _ABOVE = -3.0, 2.0  # a typical part scores 0; shown beyond the reject limit
_TAIL = 0.005  # of the points may lie beyond an end of an axis; they are drawn at its edge


@dataclass(frozen=True)
class Point:
    """One inspection: `kind` is same, stricter or milder, which the shadow is where they differ."""

    pair: Pair
    x: float
    y: float
    kind: str


@dataclass(frozen=True)
class Axis:
    """One model's scores: ticks and its two limits as (place, value)."""

    ticks: Sequence[tuple[float, float]]
    limits: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scatter:
    points: Sequence[Point]  # those that agree first, so that the others lie on top
    active: Axis
    shadow: Axis


@dataclass(frozen=True)
class ShadowView:
    """The comparison, its chart, and the newest disagreements."""

    recipe: str
    comparison: Comparison
    scatter: Scatter | None
    titles: Mapping[str, str]  # name and version of the models, by hash
    active: str  # hash of what inspects the recipe
    since: datetime | None

    @property
    def disagreements(self) -> Sequence[Pair]:
        return self.comparison.pairs[:SHOWN]

    @property
    def counts(self) -> Mapping[str, int]:
        """How often the shadow decided the same, stricter and milder."""
        found = {"same": 0, "stricter": 0, "milder": 0}
        for (active, shadow), count in self.comparison.confusion.items():
            found[kind(active, shadow)] += count
        return found


def kind(active: str, shadow: str) -> str:
    """How the shadow's verdict relates to the active model's."""
    difference = VERDICTS.index(shadow) - VERDICTS.index(active)
    return "same" if difference == 0 else "stricter" if difference > 0 else "milder"


def shadow_view(database: Database, model_hash: str, recipe: str, active: str) -> ShadowView:
    """InspectionError 404 for an unknown model or recipe; `active` inspects the recipe now."""
    found = compare(
        database, model_hash, recipe, since=None, disagreements=True, before=None, limit=SHOWN + 1
    )
    pairs: list[Pair] = []
    limits = None
    with database.read() as session:
        if found.window is not None:
            span = found.window.span
            rows = shadow_scores.pairs(session, span, disagreements=False, before=None, limit=POINTS)
            pairs = [Pair(*row) for row in rows]
        if pairs:
            newest = session.get(InspectionRow, pairs[0].score.inspection_id)
            if newest is not None and newest.review is not None and newest.reject is not None:
                limits = newest.review, newest.reject
        hashes = {model_hash, active, *(pair.score.active_hash for pair in pairs)}
        titles = model_life.titles(session, hashes)
    scatter = None if not pairs else _scatter(pairs, limits)
    since = None if found.window is None else found.window.span.since
    return ShadowView(recipe, found, scatter, titles, active, since)


def _scatter(pairs: Sequence[Pair], limits: tuple[float, float] | None) -> Scatter:
    rows: list[ShadowScoreRow] = [pair.score for pair in pairs]
    x = _Scale(np.array([row.active_score for row in rows]), limits or (), LEFT, WIDTH)
    y = _Scale(np.array([row.score for row in rows]), (rows[0].review, rows[0].reject), TOP + HEIGHT, -HEIGHT)
    points = [
        Point(pair, x(row.active_score), y(row.score), kind(row.active_verdict, row.verdict))
        for pair, row in zip(pairs, rows, strict=True)
    ]
    return Scatter(sorted(points, key=lambda point: point.kind != "same"), x.axis, y.axis)


class _Scale:
    """Scores -> places along one axis, which begins at `start`."""

    def __init__(
        self, scores: NDArray[np.float64], limits: Sequence[float], start: float, length: float
    ) -> None:
        low, high = np.quantile(scores, [_TAIL, 1 - _TAIL])
        self._low = min(_LOW, float(low) - 0.5)
        self._high = max(float(high) + 0.5, *(limit + _ABOVE for limit in limits), 5.0)
        self._limits, self._start, self._length = limits, start, length

    def __call__(self, score: float) -> float:
        share = (min(max(score, self._low), self._high) - self._low) / (self._high - self._low)
        return round(self._start + share * self._length, 1)

    @property
    def axis(self) -> Axis:
        """With about six ticks at round values."""
        rough = (self._high - self._low) / 6
        size = 10 ** np.floor(np.log10(rough))
        step = float(size * min((1, 2, 5, 10), key=lambda n: abs(n * size - rough)))
        ticks = np.arange(np.ceil(self._low / step), np.floor(self._high / step) + 1) * step
        return Axis(
            [(self(value), float(value)) for value in ticks], [(self(limit), limit) for limit in self._limits]
        )
