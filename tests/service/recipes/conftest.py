"""Rows of inspections as the pipeline leaves them, on both databases."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from models.bundle import Manifest, Thresholds
from service.access.principal import Principal
from service.db.repository import models
from service.db.session import Database
from service.db.tables import InspectionRow
from service.ids import new_id
from service.recipes.book import RecipeBook
from service.recipes.limits import Place
from tests.service.conftest import manifest_values

HASH = "f" * 64
ENGINEER = Principal("ann", "admin", "user")
OPERATOR = Principal("bob", "operator", "user")
OTHER = Principal("eve", "operator", "user")
OLD = Thresholds(review=2.0, reject=4.0)
PLACE = Place("bolt", HASH, "fast", OLD, 10)
_keys = itertools.count()

Insert = Callable[..., str]


@pytest.fixture
def line(database: Database) -> Database:
    """A database with a model and the recipe `bolt`."""
    with database.write() as session:
        models.register(session, Manifest.model_validate(manifest_values()), HASH, "")
    RecipeBook(database).create(ENGINEER, "bolt", {})
    return database


@pytest.fixture
def insert(line: Database) -> Insert:
    """Store a finished inspection with a score; its verdict follows from OLD."""

    def store(score: float | None = 0.0, **values: Any) -> str:
        row = InspectionRow(**{**_columns(score), **values})
        with line.write() as session:
            session.add(row)
        return row.id

    return store


def _columns(score: float | None) -> dict[str, Any]:
    verdict = "ERROR"
    if score is not None:
        verdict = "PASS" if score < OLD.review else "REVIEW" if score < OLD.reject else "REJECT"
    margin = None if score is None else min(abs(score - OLD.review), abs(score - OLD.reject))
    return {
        "id": new_id(),
        "created_at": datetime.now(UTC),
        "status": "failed" if score is None else "done",
        "verdict": verdict,
        "score": score,
        "score_raw": score,
        "margin": margin,
        "wanted": verdict == "REVIEW",
        "recipe": "bolt",
        "attributes": {},
        "profile": "fast",
        "model_hash": HASH,
        "model_name": "tiny",
        "model_version": "1",
        "latency_ms": {},
        "image_sha256": "0" * 64,
        "image_media_type": "image/png",
        "image_height_px": 30,
        "image_width_px": 40,
        "request_digest": f"{next(_keys):064}",
    }
