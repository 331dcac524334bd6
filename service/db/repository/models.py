"""Bundles that are known here, and which of them inspects what."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.bundle import Manifest
from service.db.tables import ModelEventRow, ModelRow, RecipeRow
from service.ids import new_id

ACTIVATED, ROLLED_BACK, REGISTERED = "activated", "rolled-back", "registered"


@dataclass(frozen=True)
class Wish:
    """What a recipe says of how it is inspected; None leaves it to the service's settings."""

    model_hash: str | None = None
    profile: str | None = None
    latency_budget_ms: int | None = None
    audit_rate: float = 0.02  # the table's default
    shadow_hash: str | None = None


def register(
    session: Session, manifest: Manifest, model_hash: str, path: str, *, who: str | None = None
) -> ModelRow:
    """Remember a bundle by its hash; its path may have changed since."""
    row = session.get(ModelRow, model_hash)
    if row is None:
        row = ModelRow(hash=model_hash, name=manifest.name, version=manifest.version, registered_by=who)
        row.registered_at = datetime.now(UTC)
        row.path = path
        session.add(row)
        session.flush()
        if who is not None:
            note(session, None, model_hash, None, REGISTERED, who, "")
    row.path = path or row.path
    row.manifest = manifest.model_dump(mode="json")
    session.flush()
    return row


def get(session: Session, model_hash: str) -> ModelRow | None:
    return session.get(ModelRow, model_hash)


def wishes(session: Session) -> Mapping[str, Wish]:
    """What the recipes say, by name."""
    row = RecipeRow
    names = (row.model_hash, row.profile, row.latency_budget_ms, row.audit_rate, row.shadow_hash)
    found = session.execute(select(row.name, *names)).all()
    return {
        name: Wish(model, profile, budget, rate, shadow)
        for name, model, profile, budget, rate, shadow in found
    }


def activate(
    session: Session,
    recipe: str,
    model_hash: str,
    *,
    previous: str,
    who: str,
    why: str,
    action: str = ACTIVATED,
) -> None:
    """Let a registered bundle inspect a recipe, which is made if there is none of this name."""
    now = datetime.now(UTC)
    row = session.get(RecipeRow, recipe, with_for_update=True)
    if row is None:
        row = RecipeRow(name=recipe, created_at=now, updated_at=now)
        session.add(row)
    else:
        row.revision += 1
        row.updated_at = now
    row.model_hash = model_hash
    if row.shadow_hash == model_hash:
        row.shadow_hash = None
    session.flush()
    note(session, recipe, model_hash, previous, action, who, why)
    set_state(session, model_hash, "active")
    if previous != model_hash and not in_use(session, previous):
        set_state(session, previous, "shadow" if shadows_any(session, previous) else "retired")


def set_state(session: Session, model_hash: str, state: str) -> None:
    if (row := session.get(ModelRow, model_hash)) is not None:
        row.state = state


def in_use(session: Session, model_hash: str) -> bool:
    """Whether a recipe names this bundle as the one that inspects it."""
    return (
        session.scalar(select(RecipeRow.name).where(RecipeRow.model_hash == model_hash).limit(1)) is not None
    )


def shadows_any(session: Session, model_hash: str) -> bool:
    """Whether this bundle shadows a recipe."""
    query = select(RecipeRow.name).where(RecipeRow.shadow_hash == model_hash)
    return session.scalar(query.limit(1)) is not None


def before(session: Session, recipe: str, model_hash: str) -> str | None:
    """The bundle that inspected a recipe before `model_hash` was activated for it."""
    return session.scalar(
        select(ModelEventRow.previous_hash)
        .where(
            ModelEventRow.recipe == recipe,
            ModelEventRow.model_hash == model_hash,
            ModelEventRow.action == ACTIVATED,
            ModelEventRow.previous_hash != model_hash,
        )
        .order_by(ModelEventRow.id.desc())
        .limit(1)
    )


def note(
    session: Session,
    recipe: str | None,
    model_hash: str,
    previous: str | None,
    action: str,
    who: str,
    why: str,
) -> None:
    """One step in a bundle's life."""
    session.add(
        ModelEventRow(
            id=new_id(),
            recipe=recipe,
            model_hash=model_hash,
            previous_hash=previous,
            action=action,
            who=who,
            why=why,
            created_at=datetime.now(UTC),
        )
    )
