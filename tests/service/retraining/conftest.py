"""A recipe with a model and images, on both databases, and a trainer that takes no minutes."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from service.blobs import DiskBlobs
from service.db.repository import models
from service.db.session import Database
from service.db.tables import InspectionRow, RecipeRow
from service.retraining.job import Job, Outcome, Plan
from tests.service.db import rows as make

STUB = Path(__file__).with_name("trainer_stub.py")


class Plant:
    """What a run needs, and what its trainer is told to do."""

    def __init__(self, database: Database, blobs: DiskBlobs, base: Bundle, folder: Path) -> None:
        self.database, self.base, self.folder = database, base, folder
        self.control = folder / "control.json"
        self.job = Job(database, blobs)
        self.plan = Plan(
            recipe="bolt",
            since=timedelta(days=30),
            work=folder / "work",
            bundles=folder / "bundles",
            trainer=(sys.executable, str(STUB), str(self.control)),
            gate_options=("--least-golden", "0"),  # nobody has confirmed a part
        )
        now = datetime.now(UTC)
        with database.write() as session:
            models.register(session, base.manifest, base.hash, str(base.path))
            session.add(
                RecipeRow(name="bolt", reasons=[], model_hash=base.hash, created_at=now, updated_at=now)
            )
        for number in range(3):
            self.inspect(number)

    def inspect(self, number: int, **values: Any) -> InspectionRow:
        ago = round((datetime.now(UTC) - make.START).total_seconds()) - 3600 + number
        own = {"recipe": "bolt", "score": 1.0, "model_hash": self.base.hash, **values}
        row = make.row(ago, **own, image_sha256=self.job._blobs.put(f"image {number}".encode()))
        with self.database.write() as session:
            make.store(session, [row])
        return row

    def tell(self, **said: object) -> None:
        self.control.write_text(json.dumps(said))

    def run(self, **changed: Any) -> Outcome:
        return self.job.run(replace(self.plan, **changed))

    @property
    def calls(self) -> list[list[str]]:
        path = self.control.with_suffix(".calls")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def recipe(self) -> Mapping[str, str | None]:
        with self.database.read() as session:
            row = session.get_one(RecipeRow, "bolt")
            return {"active": row.model_hash, "shadow": row.shadow_hash}


@pytest.fixture
def plant(database: Database, bundle: Bundle, tmp_path: Path) -> Plant:
    return Plant(database, DiskBlobs(tmp_path / "blobs"), bundle, tmp_path)
