"""Recipes as a quality engineer changes them: each method is one transaction with its entry in the audit log.

Everything here blocks and is called in a thread.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.access.principal import Principal
from service.db.repository import audit, recipes
from service.db.session import Database
from service.db.tables import RecipeRow
from service.errors import InspectionError
from service.recipes.attributes import check_attributes, check_schema

DEFAULT = "default"
"""What inspects an image that names no recipe; it always exists."""


@dataclass(frozen=True)
class Terms:
    """What a recipe says of an inspection that is about to be accepted."""

    profile: str | None = None
    mask_id: str | None = None
    latency_budget_ms: int | None = None


class RecipeBook:
    """All recipes of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ensure_default(self) -> None:
        """Make the recipe of images that name none."""
        # Another process may start in this moment, too; then its row is as good.
        with suppress(IntegrityError), self._database.write() as session:
            if recipes.get(session, DEFAULT) is None:
                recipes.add(session, DEFAULT, {"description": "images that name no recipe"})

    def get(self, name: str) -> RecipeRow:
        with self._database.read() as session:
            return recipes.need(session, name)

    def page(self, *, archived: bool, after: str, limit: int) -> Sequence[RecipeRow]:
        with self._database.read() as session:
            return recipes.page(session, archived=archived, after=after, limit=limit)

    def create(self, who: Principal, name: str, values: Mapping[str, Any]) -> RecipeRow:
        """A new recipe; 409 when the name is taken, also by an archived one."""
        _check(values)
        try:
            with self._database.write() as session:
                row = recipes.add(session, name, values)
                audit.record(session, who, "recipes.create", f"recipe/{name}", values)
                return row
        except IntegrityError:
            detail = f"recipe {name} exists, perhaps archived; change it with PATCH /v1/recipes/{name}"
            raise InspectionError(409, "recipe-exists", detail) from None

    def change(self, who: Principal, name: str, values: Mapping[str, Any], revision: int) -> RecipeRow:
        """Change a recipe that nobody else has changed since `revision`; else 409."""
        _check(values)
        with self._database.write() as session:
            row = self._at(session, name, revision)
            recipes.change(session, row, values)
            audit.record(session, who, "recipes.change", f"recipe/{name}", values)
            return row

    def archive(self, who: Principal, name: str, archived: bool, revision: int | None = None) -> RecipeRow:
        """Take a recipe out of use, or into it again; its inspections, limits and masks stay."""
        if name == DEFAULT and archived:
            detail = "the recipe default inspects images that name none, so it cannot be archived"
            raise InspectionError(409, "recipe-needed", detail)
        with self._database.write() as session:
            row = self._at(session, name, revision)
            if archived != (row.archived_at is not None):
                recipes.change(session, row, {"archived_at": datetime.now(UTC) if archived else None})
                action = "recipes.archive" if archived else "recipes.restore"
                audit.record(session, who, action, f"recipe/{name}")
            return row

    def terms(self, name: str, attributes: Mapping[str, Any], *, strict: bool) -> Terms:
        """What the recipe says of an image posted to it.

        InspectionError 422 when the recipe is archived, when its schema does not allow the attributes, or,
        if `strict`, when nobody made it.
        """
        with self._database.read() as session:
            row = recipes.get(session, name)
            known = list(recipes.names(session)) if row is None and strict else []
        if row is None:
            if strict:
                detail = f"there is no recipe {name!r}; create it first, or send one of: {', '.join(known)}"
                raise InspectionError(422, "unknown-recipe", detail, extra={"recipes": known})
            return Terms()
        if row.archived_at is not None:
            detail = f"recipe {name} is archived; restore it with PATCH /v1/recipes/{name}, or use another"
            raise InspectionError(422, "recipe-archived", detail)
        check_attributes(row.attributes_schema, attributes, name)
        return Terms(row.profile, row.mask_id, row.latency_budget_ms)

    def _at(self, session: Session, name: str, revision: int | None) -> RecipeRow:
        row = recipes.need(session, name, lock=True)
        if revision is not None and row.revision != revision:
            detail = (
                f"recipe {name} is at revision {row.revision}, not {revision}: somebody changed it; "
                "read it again and repeat the change if it is still wanted"
            )
            raise InspectionError(409, "revision-conflict", detail, extra={"revision": row.revision})
        return row


def _check(values: Mapping[str, Any]) -> None:
    schema = values.get("attributes_schema")
    if schema is not None:
        check_schema(schema)
