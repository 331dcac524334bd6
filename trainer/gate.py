"""`gate`: whether a candidate may take the active model's place. Nothing here trains or changes anything."""

import importlib.metadata
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.bundle import Bundle, Thresholds
from models.decode import decode
from models.preprocess import preprocess
from models.snapshot import LEAST_GOLDEN
from trainer import criteria
from trainer.console import Stages, quiet, without_note
from trainer.criteria import Criterion
from trainer.exam import PASS, REJECT, Both, Exam, GateError, Side, ask_both, open_side, time_both
from trainer.export import ExportError, Networks, check_networks
from trainer.fit import GOLDEN
from trainer.protocol import LIBRARIES, hardware


@dataclass(frozen=True)
class Settings:
    """How the gate is held."""

    profile: str | None = None
    active_limits: Thresholds | None = None
    latency_limit: float = 1.25
    least_golden: int = LEAST_GOLDEN
    device: Literal["cpu", "gpu"] = "cpu"
    threads: int = 0


@dataclass(frozen=True)
class Gate:
    """What came of it; it is passed when no criterion failed."""

    candidate: Side
    active: Side
    criteria: list[Criterion]
    recent: Both
    worse: list[tuple[Path, str]]  # images that only the candidate gets wrong, and how
    facts: dict[str, Any]

    @property
    def passed(self) -> bool:
        return all(criterion.passed is not False for criterion in self.criteria)


def hold(candidate: Bundle, active: Bundle, exam: Exam, settings: Settings, stages: Stages = quiet) -> Gate:
    """Ask both models the same questions. Raises GateError, and EngineError where they cannot run."""
    new, old = _sides(candidate, active, exam, settings)
    found: dict[str, Both] = {}
    for name, paths in (
        ("good", exam.good),
        ("defective", exam.defective),
        ("escapes", exam.escapes),
        ("recent", exam.recent),
    ):
        with stages(f"{name} images", len(paths)) as advance:
            found[name] = ask_both(new, old, paths, exam.mask, without_note(advance), strict=name != "recent")
    images = [path for both in found.values() for path in both.paths]
    if not images:
        raise GateError("there is not one image to look at: no confirmed part, missed defect or recent image")
    limit = settings.latency_limit
    asked = [
        criteria.golden(found["good"], found["defective"], len(exam.escapes), settings.least_golden),
        criteria.escapes(found["escapes"]),
        criteria.good_parts("overkill", found["good"], new),
        criteria.good_parts("review_load", found["good"], new),
        criteria.drift(found["recent"], new, old),
        criteria.parity(_parity(candidate, images)),
        criteria.latency(time_both(new, old, images, exam.mask, limit), limit),
    ]
    return Gate(new, old, asked, found["recent"], _worse(found), _facts(new, old, exam, settings))


def _sides(candidate: Bundle, active: Bundle, exam: Exam, settings: Settings) -> tuple[Side, Side]:
    """Both under one profile; the active model by the limits in force if they are known."""
    point = None if exam.export is None else exam.export.operating_point
    if point is not None and point.model_hash != active.hash:
        point = None
    default = active.manifest.default_profile[settings.device]
    profile = settings.profile or (point.profile if point is not None else default)
    limits = settings.active_limits
    if limits is None and point is not None and point.profile == profile:
        limits = Thresholds(review=point.review, reject=point.reject)
    return (
        open_side(candidate, profile, None, settings.device, settings.threads),
        open_side(active, profile, limits, settings.device, settings.threads),
    )


def _parity(bundle: Bundle, paths: Sequence[Path]) -> float:
    """Largest difference of the exported networks from the weights beside them; infinite if incomparable."""
    manifest = bundle.manifest
    golden = np.stack([preprocess(decode(path.read_bytes()), manifest.preprocess) for path in paths[:GOLDEN]])
    networks = Networks.of_bundle(bundle)
    largest = max(profile.largest_timestep for profile in manifest.profiles.values())
    try:
        return check_networks(
            networks, bundle.path, golden, manifest.network.reduce, manifest.diffusion, largest, math.inf
        )
    except ExportError:
        return math.inf


def _worse(found: dict[str, Both]) -> list[tuple[Path, str]]:
    kinds = (("good", REJECT, "good, rejected"), ("defective", PASS, "defective, passed"))
    worse = []
    for name, code, words in (*kinds, ("escapes", PASS, "missed once, passed again")):
        both = found[name]
        rows = np.flatnonzero((both.candidate.verdicts == code) & (both.active.verdicts != code))
        worse += [(both.paths[row], words) for row in rows]
    return worse


def _facts(new: Side, old: Side, exam: Exam, settings: Settings) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "candidate": new.facts,
        "active": old.facts,
        "training_set": None if exam.export is None else exam.export.snapshot,
        "settings": {
            key: value for key, value in asdict(settings).items() if key not in ("profile", "active_limits")
        },
        "images": {name: len(getattr(exam, name)) for name in ("good", "defective", "escapes", "recent")},
        "masked": exam.mask is not None,
        "hardware": hardware(settings.device),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def write_json(path: Path, gate: Gate) -> None:
    """For a pipeline; a figure that is no number is null."""
    document = {
        "schema_version": 1,
        "passed": gate.passed,
        "criteria": [asdict(criterion) for criterion in gate.criteria],
        **gate.facts,
    }
    text = json.dumps(_finite(document), indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
