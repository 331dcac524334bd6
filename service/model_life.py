"""What is done with bundles: registered, activated, shadowed, retired; with audit entry and messages.

A process that serves activates through `service.engines`: there the bundle is loaded first. Everything here
blocks and is called in a thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from models.bundle import Bundle
from service.access.principal import Principal
from service.bundles import examine
from service.db.repository import audit, model_life, models, outbox, recipes
from service.db.session import Database
from service.db.tables import ModelEventRow, ModelRow
from service.errors import InspectionError


@dataclass(frozen=True)
class Listed:
    """Models and the recipes they inspect and shadow, by hash."""

    rows: Sequence[ModelRow]
    uses: Mapping[str, list[str]]
    shadows: Mapping[str, list[str]]


def register(session: Session, who: Principal, bundle: Bundle) -> tuple[ModelRow, bool]:
    """Remember a verified bundle; False if it was known."""
    known = models.get(session, bundle.hash) is not None
    row = models.register(session, bundle.manifest, bundle.hash, str(bundle.path), who=who.name)
    audit.record(session, who, "models.register", f"model/{bundle.hash}", {"path": row.path})
    return row, not known


def activate(
    session: Session, who: Principal, recipe: str, model_hash: str, *, previous: str, why: str, action: str
) -> None:
    """Let a registered bundle inspect a recipe; `action` is `models.ACTIVATED` or `ROLLED_BACK`."""
    models.activate(session, recipe, model_hash, previous=previous, who=who.name, why=why, action=action)
    told = {"recipe": recipe, "model_hash": model_hash, "previous_hash": previous, "why": why}
    audit.record(session, who, f"models.{action}", f"recipe/{recipe}", told)
    outbox.announce(session, "model.activated", recipe, {**told, "who": who.name})


def shadow(
    session: Session, who: Principal, model_hash: str, recipe: str, *, serves: str | None, on: bool, why: str
) -> None:
    """Let a model shadow a recipe, in the place of another, or end that.

    InspectionError 409 for the one that `serves` the recipe, or that does not shadow it.
    """
    model_life.need(session, model_hash)
    row = recipes.need(session, recipe, lock=True)
    if on and model_hash == (row.model_hash or serves):
        detail = f"model {model_hash[:12]} inspects recipe {recipe} itself"
        raise InspectionError(409, "model-active", detail)
    if not on and row.shadow_hash != model_hash:
        detail = f"model {model_hash[:12]} does not shadow recipe {recipe}"
        raise InspectionError(409, "not-a-shadow", detail)
    previous = row.shadow_hash
    recipes.change(session, row, {"shadow_hash": model_hash if on else None})
    if previous is not None and (not on or previous != model_hash):
        _tell(session, who, recipe, previous, model_life.UNSHADOWED, why)
    if on:
        _tell(session, who, recipe, model_hash, model_life.SHADOWED, why)


def _tell(session: Session, who: Principal, recipe: str, model_hash: str, action: str, why: str) -> None:
    """A shadow began or ended: the model's state, its history, the audit log, and a message."""
    model = model_life.need(session, model_hash)
    if model.state != "active":
        model.state = "shadow" if models.shadows_any(session, model_hash) else "candidate"
    models.note(session, recipe, model_hash, None, action, who.name, why)
    told = {"recipe": recipe, "model_hash": model_hash, "why": why}
    audit.record(session, who, f"models.{action}", f"recipe/{recipe}", told)
    outbox.announce(session, f"model.{action}", recipe, {**told, "who": who.name})


class ModelBook:
    """All models of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def listed(self, *, name: str | None = None, state: str | None = None, limit: int = 100) -> Listed:
        with self._database.read() as session:
            rows = model_life.listed(session, name=name, state=state, limit=limit)
            return Listed(rows, model_life.uses(session), model_life.shadows(session))

    def one(self, model_hash: str) -> Listed:
        """One model; 404 if it is not registered."""
        with self._database.read() as session:
            row = model_life.need(session, model_hash)
            return Listed([row], model_life.uses(session), model_life.shadows(session))

    def recipes(self) -> list[str]:
        """Names of all recipes in use."""
        with self._database.read() as session:
            return list(recipes.names(session, limit=10_000))

    def get(self, model_hash: str) -> ModelRow:
        return self.one(model_hash).rows[0]

    def events(
        self, *, model_hash: str | None, recipe: str | None, before: str | None, limit: int
    ) -> Sequence[ModelEventRow]:
        with self._database.read() as session:
            return model_life.events(
                session, model_hash=model_hash, recipe=recipe, before=before, limit=limit
            )

    def register(self, who: Principal, path: Path, trusted_keys: Path | None = None) -> tuple[ModelRow, bool]:
        """Verify a bundle and remember it; False if it was known. Nothing of it is run."""
        bundle = examine(path, trusted_keys)
        with self._database.write() as session:
            return register(session, who, bundle)

    def shadow(
        self, who: Principal, model_hash: str, recipe: str, *, serves: str, on: bool, why: str
    ) -> None:
        """Let a model shadow a recipe, or end that; see `shadow`."""
        with self._database.write() as session:
            shadow(session, who, model_hash, recipe, serves=serves, on=on, why=why)

    def retire(self, who: Principal, model_hash: str, *, own: str | None, why: str) -> None:
        """Take a model out of the choice; 409 while it inspects or shadows something, or is `own`."""
        with self._database.write() as session:
            row = model_life.need(session, model_hash)
            used = [
                *model_life.uses(session).get(model_hash, []),
                *model_life.shadows(session).get(model_hash, []),
            ]
            if used or model_hash == own:
                what = f"recipes {', '.join(used[:10])}" if used else "every recipe that names no other"
                detail = f"model {model_hash[:12]} is used by {what}; activate another one there first"
                raise InspectionError(409, "model-in-use", detail)
            row.state = "retired"
            models.note(session, None, model_hash, None, model_life.RETIRED, who.name, why)
            audit.record(session, who, "models.retired", f"model/{model_hash}", {"why": why})
            told = {"model_hash": model_hash, "why": why, "who": who.name}
            outbox.announce(session, "model.retired", "", told)
