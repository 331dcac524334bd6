"""Models as their pages show them, gathered from the store.

Everything here blocks and is called in a thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.bundle import Manifest
from service.db.repository import model_life
from service.db.session import Database
from service.db.tables import ModelEventRow, ModelRow
from service.model_life import Listed

_RECIPES = 500
_EVENTS = 100


@dataclass(frozen=True)
class Use:
    """A recipe and the models at work there, by hash."""

    recipe: str
    model: str
    shadow: str | None
    earlier: str | None  # where a rollback leads


@dataclass(frozen=True)
class ModelView:
    """One model, all recipes as it may serve them, and what was done with it."""

    row: ModelRow
    listed: Listed
    manifest: Manifest | None
    uses: Sequence[Use]
    events: Sequence[ModelEventRow]
    titles: Mapping[str, str]  # name and version of every model that is mentioned, by hash

    def use(self, recipe: str | None) -> Use | None:
        return next((use for use in self.uses if use.recipe == recipe), None)

    @property
    def made(self) -> datetime | None:
        """When the trainer wrote the bundle, if its manifest says so with a time zone."""
        try:
            found = datetime.fromisoformat("" if self.manifest is None else self.manifest.created_at)
        except ValueError:
            return None
        return found if found.tzinfo is not None else None

    @property
    def figures(self) -> Mapping[str, Any]:
        """Single metrics by name, without their protocol."""
        return {name: value for name, value in self._metrics.items() if not isinstance(value, Mapping)}

    @property
    def tables(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        """Metrics of several rows, each with its columns."""
        return {
            name: rows
            for name, rows in self._metrics.items()
            if isinstance(rows, Mapping) and rows and all(isinstance(row, Mapping) for row in rows.values())
        }

    @property
    def _metrics(self) -> Mapping[str, Any]:
        found = {} if self.manifest is None else self.manifest.metrics
        return {name: value for name, value in found.items() if name != "protocol"}

    @property
    def free(self) -> bool:
        """Whether no recipe is inspected or shadowed by it, so that it can be retired."""
        return all(self.row.hash not in (use.model, use.shadow) for use in self.uses)


def model_view(database: Database, model_hash: str, own: str) -> ModelView:
    """InspectionError 404 for an unknown model; `own` inspects the recipes that name no model."""
    with database.read() as session:
        row = model_life.need(session, model_hash)
        earlier = model_life.earlier(session, model_hash)
        uses = [
            Use(recipe, named or own, shadow, earlier.get(recipe))
            for recipe, named, shadow in model_life.assignments(session, _RECIPES)
        ]
        events = model_life.events(session, model_hash=model_hash, recipe=None, before=None, limit=_EVENTS)
        hashes = {model_hash, *earlier.values(), *(use.model for use in uses)}
        hashes |= {found for use in uses if (found := use.shadow) is not None}
        hashes |= {event.model_hash for event in events}
        hashes |= {found for event in events if (found := event.previous_hash) is not None}
        listed = Listed([row], model_life.uses(session), model_life.shadows(session))
        manifest = None if row.manifest is None else Manifest.model_validate(row.manifest)
        return ModelView(row, listed, manifest, uses, events, model_life.titles(session, hashes))
