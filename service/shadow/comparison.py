"""A shadow against the model that inspects: how often they agree, where not, and how long each takes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np

from service.db.repository import model_life, recipes, shadow_scores
from service.db.repository.shadow_scores import Span, Window
from service.db.session import Database
from service.db.tables import ModelEventRow, ShadowScoreRow
from service.recipes.intervals import Share, plain_share

MOST = 10_000
"""Inspections that are counted; older ones are only listed."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of the engine for an image; None without any."""

    p50_ms: float | None = None
    p95_ms: float | None = None


@dataclass(frozen=True)
class Pair:
    """One inspection as both see it."""

    score: ShadowScoreRow
    created_at: datetime
    review_state: str


@dataclass(frozen=True)
class Comparison:
    """Counts over `window`, which is None for a model that never was a shadow of the recipe."""

    window: Window | None = None
    confusion: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (active, shadow)
    agreement: Share | None = None
    active: Latency = Latency()
    shadow: Latency = Latency()
    failures: Sequence[ModelEventRow] = ()  # processes that could not load the shadow
    pairs: Sequence[Pair] = ()

    @property
    def scored(self) -> int:
        return sum(self.confusion.values())


def compare(
    database: Database,
    model_hash: str,
    recipe: str,
    *,
    since: datetime | None,
    disagreements: bool,
    before: str | None,
    limit: int,
) -> Comparison:
    """Of the model's newest time as a shadow of the recipe; 404 if either is unknown. Blocks."""
    with database.read() as session:
        model_life.need(session, model_hash)
        recipes.need(session, recipe)
        within = shadow_scores.span(session, recipe, model_hash)
        if within is None:
            return Comparison()
        within = _later(within, since)
        window = shadow_scores.window(session, within, MOST)
        measured = shadow_scores.measured(session, window)
        failures = shadow_scores.failures(session, within)
        found = shadow_scores.pairs(session, within, disagreements=disagreements, before=before, limit=limit)
        pairs = [Pair(*one) for one in found]
    confusion = Counter((active, shadow) for active, shadow, _, _ in measured)
    agreed = sum(count for (active, shadow), count in confusion.items() if active == shadow)
    return Comparison(
        window,
        confusion,
        plain_share(agreed, len(measured)),
        _latency([row.active_latency_ms for row in measured]),
        _latency([row.latency_ms for row in measured]),
        failures,
        pairs,
    )


def _later(within: Span, since: datetime | None) -> Span:
    return within if since is None else replace(within, since=max(within.since, since))


def _latency(values: Sequence[float | None]) -> Latency:
    known = [value for value in values if value is not None]
    return Latency(*(float(q) for q in np.percentile(known, [50, 95]))) if known else Latency()
