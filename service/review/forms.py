"""What forms send, and what they offer."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from service.db.session import Database
from service.errors import validation_error
from service.model_life import ModelBook

Sent = TypeVar("Sent", bound=BaseModel)
_WITHOUT_ZONE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?")
_MOST_MODELS = 100


def sent(request: Request, model: type[Sent]) -> Sent:
    """The query of a page as a model; InspectionError 422 as of the API."""
    # A form without scripts sends its empty fields, too; they filter nothing. Its fields of time have no
    # zone; they say that they are in UTC.
    given = {
        name: f"{value}Z" if _WITHOUT_ZONE.fullmatch(value) else value
        for name, value in request.query_params.items()
        if value.strip()
    }
    return valid(model, given)


def valid(model: type[Sent], given: Mapping[str, Any], *, strict: bool | None = None) -> Sent:
    """What was sent as a model; InspectionError 422 as of the API. `strict`: None is as the model says."""
    try:
        return model.model_validate(given, strict=strict)
    except ValidationError as error:
        raise validation_error([dict(item) for item in error.errors()]) from None


def models(database: Database) -> list[tuple[str, str]]:
    """Hash and name of the models to choose from, the last registered first."""
    rows = ModelBook(database).listed(limit=_MOST_MODELS).rows
    return [(row.hash, f"{row.name} {row.version} · {row.hash[:8]}") for row in rows]
