"""Rows as the service would have written them, for tests of what is asked of them."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from service.db.repository import inspections
from service.db.tables import InspectionRow, ModelRow
from service.ids import first_id_at

START = datetime(2026, 3, 1, tzinfo=UTC)
MODEL = "a" * 64


def add_model(session: Session, model_hash: str = MODEL) -> None:
    session.add(ModelRow(hash=model_hash, name="tiny", version="1", path="", registered_at=START))
    session.flush()


def identifier(number: int) -> str:
    """The id of the row that arrived `number` seconds after START."""
    return first_id_at(START + timedelta(seconds=number))[:-4] + f"{number % 65536:04x}"


def row(number: int, **values: Any) -> InspectionRow:
    """A finished PASS that arrived `number` seconds after START, changed by `values`."""
    blob = f"{number:064x}"
    given: dict[str, Any] = {
        "id": identifier(number),
        "created_at": START + timedelta(seconds=number),
        "status": "done",
        "verdict": "PASS",
        "recipe": "default",
        "attributes": {},
        "profile": "fast",
        "model_hash": MODEL,
        "model_name": "tiny",
        "model_version": "1",
        "latency_ms": {},
        "image_sha256": blob,
        "image_media_type": "image/png",
        "image_height_px": 32,
        "image_width_px": 32,
        "request_digest": blob,
    }
    return InspectionRow(**{**given, **values})


def mixed(count: int, seed: int = 0) -> list[InspectionRow]:
    """Rows of all kinds, with rare and common, related and contradictory values."""
    rng = random.Random(seed)
    return [_any(rng, number) for number in range(count)]


def _any(rng: random.Random, number: int) -> InspectionRow:
    status = rng.choices(["done", "queued", "failed", "expired"], [90, 4, 4, 2])[0]
    score = round(rng.gauss(0, 3), 1) if status == "done" else None
    verdict = {"failed": "ERROR", "expired": "EXPIRED"}.get(status)
    if score is not None:
        verdict = "PASS" if score < 3 else "REVIEW" if score < 5 else "REJECT"
    line = rng.choice("ABC")
    return row(
        number,
        status=status,
        verdict=verdict,
        score=score,
        score_raw=score,
        margin=None if score is None else round(min(abs(score - 3), abs(score - 5)), 1),
        wanted=verdict == "REVIEW",
        review_state=rng.choice(["none", "none", "good", "defective"]) if verdict == "REVIEW" else "none",
        disagreement=rng.random() < 0.02,
        recipe=rng.choices(["bolt", "nut"], [9, 1])[0],
        line=line,
        station=f"{line}{rng.randrange(2)}",
        lot=f"lot{number // 50}",
        serial=f"s{number % 200}",
        captured_at=None if rng.random() < 0.1 else START + timedelta(seconds=number - rng.randrange(30)),
        attributes={
            "shift": rng.choice(["day", "night"]),
            "tool": rng.randrange(4),
            "wet": rng.random() < 0.1,
        },
    )


def store(session: Session, rows: Sequence[InspectionRow]) -> None:
    for one in rows:
        inspections.add(session, one)
