"""A bundle's life beside activation: lists, shadows, retirement, and what happened when."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from service.db.repository import models
from service.db.tables import InspectionRow, ModelEventRow, ModelRow, RecipeRow
from service.errors import InspectionError

SHADOWED, UNSHADOWED, RETIRED = "shadowed", "unshadowed", "retired"
UNUSABLE = "unusable"  # a process could not load it as a shadow
_EVENTS = 5000


def need(session: Session, model_hash: str) -> ModelRow:
    """The model; 404 if none of this hash is registered."""
    row = session.get(ModelRow, model_hash)
    if row is None:
        detail = f"no model {model_hash[:64]!r} is registered here; register its bundle with POST /v1/models"
        raise InspectionError(404, "unknown-model", detail)
    return row


def listed(session: Session, *, name: str | None, state: str | None, limit: int) -> Sequence[ModelRow]:
    """Models, the last registered first."""
    query = select(ModelRow).order_by(ModelRow.registered_at.desc(), ModelRow.hash).limit(limit)
    if name is not None:
        query = query.where(ModelRow.name == name)
    if state is not None:
        query = query.where(ModelRow.state == state)
    return session.scalars(query).all()


def by_prefix(session: Session, prefix: str) -> Sequence[ModelRow]:
    """Models whose hash begins so; `prefix` is hexadecimal."""
    return session.scalars(select(ModelRow).where(ModelRow.hash.startswith(prefix)).limit(2)).all()


def uses(session: Session) -> Mapping[str, list[str]]:
    """The recipes that each model inspects, by its hash."""
    query = select(RecipeRow.model_hash, RecipeRow.name).where(RecipeRow.model_hash.is_not(None))
    found: dict[str, list[str]] = {}
    for model_hash, recipe in session.execute(query.order_by(RecipeRow.name)):
        found.setdefault(str(model_hash), []).append(recipe)
    return found


def active(session: Session, recipe: str) -> str | None:
    """The model a recipe names, or else the one that inspected its newest image."""
    named = session.scalar(select(RecipeRow.model_hash).where(RecipeRow.name == recipe))
    if named is not None:
        return named
    query = select(InspectionRow.model_hash).where(InspectionRow.recipe == recipe)
    found = session.scalar(query.order_by(InspectionRow.id.desc()).limit(1))
    if found is not None:
        return found
    # Nothing was inspected: the service's own, of which there is one unless recipes name others.
    own = session.scalars(select(ModelRow.hash).where(ModelRow.state == "active").limit(2)).all()
    return own[0] if len(own) == 1 else None


def shadows(session: Session) -> Mapping[str, list[str]]:
    """The recipes that each model shadows, by its hash."""
    query = select(RecipeRow.shadow_hash, RecipeRow.name).where(RecipeRow.shadow_hash.is_not(None))
    found: dict[str, list[str]] = {}
    for model_hash, recipe in session.execute(query.order_by(RecipeRow.name)):
        found.setdefault(str(model_hash), []).append(recipe)
    return found


def assignments(session: Session, limit: int) -> Sequence[tuple[str, str | None, str | None]]:
    """Recipes in use by name: the models that inspect and shadow them, by hash."""
    query = select(RecipeRow.name, RecipeRow.model_hash, RecipeRow.shadow_hash)
    query = query.where(RecipeRow.archived_at.is_(None)).order_by(RecipeRow.name).limit(limit)
    return [(name, model, shadow) for name, model, shadow in session.execute(query)]


def earlier(session: Session, model_hash: str) -> Mapping[str, str]:
    """What inspected each recipe before this model was last activated for it: where a rollback leads."""
    query = select(ModelEventRow).where(
        ModelEventRow.model_hash == model_hash,
        ModelEventRow.action == models.ACTIVATED,
        ModelEventRow.previous_hash != model_hash,
    )
    found: dict[str, str] = {}
    for event in session.scalars(query.order_by(ModelEventRow.id.desc()).limit(_EVENTS)):
        if event.recipe is not None and event.previous_hash is not None:
            found.setdefault(event.recipe, event.previous_hash)
    return found


def titles(session: Session, hashes: Collection[str]) -> Mapping[str, str]:
    """Name and version of models, by hash."""
    query = select(ModelRow.hash, ModelRow.name, ModelRow.version).where(ModelRow.hash.in_(hashes))
    return {found: f"{name} {version}" for found, name, version in session.execute(query)}


def events(
    session: Session, *, model_hash: str | None, recipe: str | None, before: str | None, limit: int
) -> Sequence[ModelEventRow]:
    """What was done, newest first; with a model also what came into its place."""
    query = select(ModelEventRow).order_by(ModelEventRow.id.desc()).limit(limit)
    if model_hash is not None:
        query = query.where(
            or_(ModelEventRow.model_hash == model_hash, ModelEventRow.previous_hash == model_hash)
        )
    if recipe is not None:
        query = query.where(ModelEventRow.recipe == recipe)
    if before is not None:
        query = query.where(ModelEventRow.id < before)
    return session.scalars(query).all()
