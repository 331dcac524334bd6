"""Recipes: one row a product, changed only by whoever knows its revision."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import RecipeRow
from service.errors import InspectionError


def get(session: Session, name: str) -> RecipeRow | None:
    return session.get(RecipeRow, name)


def need(session: Session, name: str, *, lock: bool = False) -> RecipeRow:
    """The row, held against others' changes until the transaction ends if asked; 404 if there is none."""
    row = session.get(RecipeRow, name, with_for_update=lock or None)
    if row is None:
        detail = f"there is no recipe {name[:64]!r}; create it with POST /v1/recipes"
        raise InspectionError(404, "unknown-recipe", detail)
    return row


def page(session: Session, *, archived: bool, after: str, limit: int) -> Sequence[RecipeRow]:
    """Recipes by name, those after `after`; archived ones only if asked."""
    query = select(RecipeRow).where(RecipeRow.name > after).order_by(RecipeRow.name).limit(limit)
    if not archived:
        query = query.where(RecipeRow.archived_at.is_(None))
    return session.scalars(query).all()


def names(session: Session, limit: int = 50) -> Sequence[str]:
    """Recipes that are in use."""
    query = select(RecipeRow.name).where(RecipeRow.archived_at.is_(None))
    return session.scalars(query.order_by(RecipeRow.name).limit(limit)).all()


def add(session: Session, name: str, values: Mapping[str, Any]) -> RecipeRow:
    """A new recipe; IntegrityError when there is one of this name."""
    now = datetime.now(UTC)
    row = RecipeRow(name=name, created_at=now, updated_at=now, **values)
    session.add(row)
    session.flush()
    return row


def change(session: Session, row: RecipeRow, values: Mapping[str, Any]) -> None:
    """New values and the next revision."""
    for name, value in values.items():
        setattr(row, name, value)
    row.revision += 1
    row.updated_at = datetime.now(UTC)
    session.flush()
