"""Looks for drift of each recipe under the model that inspects it; alarms rise late and fall late.

Scores are compared with those of the model's training images. What pictures are like - brightness,
sharpness, size - no bundle says: they are compared with the first that the model inspected here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

import numpy as np
from safetensors.numpy import load
from sqlalchemy import Row

from models.anomaly import ScoreCalibration
from models.bundle import Manifest
from service.bundles import read_file
from service.db.repository import drift, models, recipes
from service.db.session import Database
from service.drift.psi import Reference, Values
from service.errors import InspectionError

Trait = Literal["score", "brightness", "sharpness", "size"]
TRAITS: tuple[Trait, ...] = ("score", "brightness", "sharpness", "size")
FIRST = 500  # inspections that pictures are compared with
NEWEST = 1000
FEWEST = 200  # of the newest; fewer say nothing
RISE, FALL = 0.25, 0.1
_SPAN = timedelta(days=7)


@dataclass(frozen=True)
class Finding:
    """One trait of the newest inspections against its reference."""

    trait: Trait
    psi: float
    rises_at: float  # an alarm does, and falls at `falls_at`
    falls_at: float
    alarm: bool
    sample: int
    reference: int


@dataclass(frozen=True)
class Seen:
    """What the last look at a recipe found; traits that too little is known of are missing."""

    at: datetime
    model_hash: str
    findings: Mapping[Trait, Finding]


class Serving(Protocol):
    """A model that inspects."""

    @property
    def hash(self) -> str: ...

    @property
    def manifest(self) -> Manifest: ...


class Models(Protocol):
    """Who knows which model inspects a recipe, and under which profile: the engines, or the registry."""

    def serving(self, recipe: str) -> Serving: ...

    def default_profile(self, recipe: str, manifest: Manifest) -> str: ...


class DriftWatch:
    """The last look at every recipe; whether an alarm stands is known to this process alone."""

    def __init__(self, database: Database, models: Models) -> None:
        self._database, self._models = database, models
        self._seen: dict[str, Seen] = {}
        self._scores: dict[tuple[str, str], Reference] = {}  # by model and profile
        self._pictures: dict[tuple[str, str], tuple[str, dict[Trait, Reference]]] = {}  # by recipe and model

    def seen(self, recipe: str) -> Seen | None:
        """What the last look found; None before the first."""
        return self._seen.get(recipe)

    def look(self, recipe: str) -> Seen:
        """Compare the newest inspections of a recipe. Blocks."""
        model, now = self._models.serving(recipe), datetime.now(UTC)
        profile = self._models.default_profile(recipe, model.manifest)
        with self._database.read() as session:
            row = recipes.get(session, recipe)
            rows = drift.newest(session, recipe, model.hash, now - _SPAN, NEWEST)
        scored = profile, None if row is None else row.mask_id  # scores under others do not compare
        alike = [one for one in rows if (one.profile, one.mask_id) == scored]
        after, references = self._first(recipe, model.hash)
        pairs = {
            trait: (known, [one for one in rows if one.id > after]) for trait, known in references.items()
        }
        training = self._training(model.hash, profile, model.manifest.calibration[profile].score)
        if training is not None:
            pairs["score"] = training, alike
        earlier = self._seen.get(recipe)
        before = earlier.findings if earlier is not None and earlier.model_hash == model.hash else {}
        findings = {
            trait: _finding(trait, known, sample, before.get(trait))
            for trait, (known, chosen) in pairs.items()
            if len(sample := _values(trait, chosen)) >= FEWEST
        }
        self._seen[recipe] = Seen(now, model.hash, findings)
        return self._seen[recipe]

    def _training(self, model_hash: str, profile: str, calibration: ScoreCalibration) -> Reference | None:
        """Calibrated scores of the training images; None when the bundle is gone."""
        if (known := self._scores.get((model_hash, profile))) is not None:
            return known
        with self._database.read() as session:
            row = models.get(session, model_hash)
        try:
            files = {} if row is None else load(read_file(row, "calibration.safetensors"))
        except InspectionError:
            return None
        if (raw := files.get(f"{profile}/scores")) is None:
            return None
        found = Reference.of(np.array([calibration.calibrate(float(one)) for one in raw]))
        self._scores[model_hash, profile] = found
        return found

    def _first(self, recipe: str, model_hash: str) -> tuple[str, dict[Trait, Reference]]:
        """Up to which inspection, and how, the first pictures were; nothing before there are enough."""
        if (known := self._pictures.get((recipe, model_hash))) is not None:
            return known
        with self._database.read() as session:
            rows = drift.first(session, recipe, model_hash, FIRST)
        if len(rows) < FIRST:
            return "", {}
        columns = {trait: _values(trait, rows) for trait in TRAITS if trait != "score"}
        found: dict[Trait, Reference] = {
            trait: Reference.of(column) for trait, column in columns.items() if len(column)
        }
        self._pictures[recipe, model_hash] = rows[-1].id, found
        return rows[-1].id, found


def _finding(trait: Trait, reference: Reference, sample: Values, before: Finding | None) -> Finding:
    """An alarm that stands falls at a lower value than it rose at, so that it does not flutter."""
    psi = reference.psi(sample)
    rises_at = max(RISE, reference.by_chance(len(sample)))
    falls_at = rises_at * FALL / RISE
    alarm = psi >= (falls_at if before is not None and before.alarm else rises_at)
    return Finding(trait, psi, rises_at, falls_at, alarm, len(sample), reference.size)


def _values(trait: Trait, rows: Sequence[Row[Any]]) -> Values:
    """A column; a size is one number that no other size has."""
    if trait == "size":
        return np.array([one.image_height_px * 1e6 + one.image_width_px for one in rows], dtype=np.float64)
    found = np.array([getattr(one, trait) for one in rows], dtype=np.float64)
    return found[np.isfinite(found)]  # rows of before a column existed have none
