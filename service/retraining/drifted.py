"""Drift as a cause to retrain: whether an alarm stands, found in the database, without an engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from models.bundle import Manifest
from service.access.cli import duration
from service.db.repository import drift, model_life, models, recipes, runs
from service.db.session import Database
from service.drift.watch import DriftWatch, Trait
from service.errors import StartupError
from service.retraining.span import Span

_NEWEST = timedelta(days=7)


class OnDrift(BaseModel):
    """Retrain when one of these traits has drifted, but not within `rest` of the last run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    traits: Annotated[tuple[Trait, ...], Field(min_length=1)] = ("score",)
    rest: Span = "7d"


@dataclass(frozen=True)
class Known:
    """A model as the registry has it."""

    hash: str
    manifest: Manifest


class Registry:
    """Which model inspects a recipe, and under which profile, by the database alone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def serving(self, recipe: str) -> Known:
        """StartupError when none does, or nothing is known of it."""
        with self._database.read() as session:
            found = model_life.active(session, recipe)
            row = None if found is None else models.get(session, found)
        if row is None or row.manifest is None:
            raise StartupError("no model inspects it")
        return Known(row.hash, Manifest.model_validate(row.manifest))

    def default_profile(self, recipe: str, manifest: Manifest) -> str:
        """The recipe's, or that of its newest image under a model that has it."""
        with self._database.read() as session:
            row = recipes.get(session, recipe)
            model = model_life.active(session, recipe)
            since = datetime.now(UTC) - _NEWEST
            newest = [] if model is None else drift.newest(session, recipe, model, since, 1)
        wished = [None if row is None else row.profile, *(one.profile for one in newest)]
        return next((name for name in wished if name in manifest.profiles), manifest.default_profile["cpu"])


class DriftCause:
    """Looks for drift where the schedule says so; whether an alarm stands is known to this process alone."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watch = DriftWatch(database, Registry(database))

    def find(self, recipe: str, wanted: OnDrift, now: datetime) -> tuple[datetime, str] | None:
        """(since when no other run may have begun, why) if the recipe is to be retrained. Blocks."""
        rested = now - duration(wanted.rest)
        with self._database.read() as session:
            row = runs.latest(session, recipe)
        if row is not None and row.started_at >= rested:
            return None
        found = self._watch.look(recipe).findings
        drifted: Mapping[Trait, float] = {
            trait: found[trait].psi for trait in wanted.traits if trait in found and found[trait].alarm
        }
        if not drifted:
            return None
        return rested, "drift of " + ", ".join(f"{trait} (PSI {psi:.2f})" for trait, psi in drifted.items())
