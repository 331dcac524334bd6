"""What the thresholds page shows of one recipe, gathered from the store.

Everything here blocks and is called in a thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from models.bundle import Thresholds
from service.db.repository import inspections, models, recipes, thresholds
from service.db.session import Database
from service.db.tables import ThresholdRow
from service.recipes.limits import InForce, Limits, Place
from service.recipes.memory import ScoreMemory
from service.recipes.whatif import Estimate, WhatIf, what_if
from service.review.scorechart import ScoreChart, draw

_VERSIONS = 12
_RECIPES = 500


@dataclass(frozen=True)
class Choice:
    """A model whose limits can be looked at, and its profiles."""

    model_hash: str
    title: str
    profiles: Sequence[str]


@dataclass(frozen=True)
class Tuning:
    """Limits of a recipe under a model and profile, against stored inspections."""

    place: Place
    base: InForce
    wanted: Thresholds
    now: WhatIf
    found: WhatIf
    chart: ScoreChart
    history: Sequence[ThresholdRow]
    older: int | None  # `below` of the next page of the history
    audit_rate: float

    def missing(self, name: Literal["escape", "overkill"]) -> str | None:
        """Why there is no estimate: a verdict of which nothing is reviewed, or what was never found."""
        estimate: Estimate = getattr(self.found, name)
        if estimate.share is not None:
            return None
        if not self.found.inspections:
            return "inspections"
        unseen = (note.verdict for note in self.found.strata if note.inspections and not note.reviewed)
        return next(unseen, "defective" if name == "escape" else "good")


def recipe_names(database: Database) -> Sequence[str]:
    """Recipes in use, by name."""
    with database.read() as session:
        return recipes.names(session, _RECIPES)


def latest_recipe(database: Database, known: Sequence[str]) -> str:
    """The one that was inspected last, if it is one of the known."""
    with database.read() as session:
        newest = inspections.newest_recipe(session)
    return newest if newest is not None and newest in known else known[0]


def choices(database: Database, recipe: str, active: str) -> list[Choice]:
    """Models that have, or will have, limits for a recipe: the active one first, then the newest."""
    with database.read() as session:
        hashes = [active, *(each for each in thresholds.models_of(session, recipe) if each != active)]
        rows = [models.get(session, each) for each in hashes]
    return [
        Choice(row.hash, f"{row.name} {row.version}", sorted(row.manifest["profiles"]))
        for row in rows
        if row is not None and row.manifest is not None
    ]


def gather(
    database: Database,
    memory: ScoreMemory,
    place: Place,
    *,
    review: float | None,
    reject: float | None,
    limit: int,
    below: int | None,
) -> Tuning:
    """Limits in force (or others that are asked for) against the newest `limit` inspections."""
    limits = Limits(database, memory)
    base = limits.in_force(place)
    given = (
        base.limits.review if review is None else review,
        base.limits.reject if reject is None else reject,
    )
    wanted = Thresholds(review=min(given), reject=max(given))
    stored = limits.stored(limits.span(place, None, None), limit)
    history = limits.history(place, below, _VERSIONS + 1)
    with database.read() as session:
        audit_rate = recipes.need(session, place.recipe).audit_rate
    return Tuning(
        place=place,
        base=base,
        wanted=wanted,
        now=what_if(stored, base.limits, base.limits),
        found=what_if(stored, base.limits, wanted),
        chart=draw(stored, base.limits, wanted),
        history=history[:_VERSIONS],
        older=history[_VERSIONS - 1].version if len(history) > _VERSIONS else None,
        audit_rate=audit_rate,
    )
