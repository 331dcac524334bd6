"""From the engine's answer, or an error, to the columns of an ended inspection."""

import asyncio
import time
from typing import Any

from sqlalchemy.exc import OperationalError

from models.anomaly import Verdict
from models.bundle import Thresholds
from service import render
from service.batching import Finished
from service.blobs import BlobMissing, BlobsUnavailable
from service.db.tables import InspectionRow
from service.engine_loader import Model
from service.errors import InspectionError, as_inspection_error
from service.ledger import Ledger
from service.prepare import Prepared
from service.recipes.sampling import drawn_for_audit
from service.verdict import EngineOutputError, judge


async def conclude(
    ledger: Ledger,
    row: InspectionRow,
    model: Model,
    profile: str,
    prepared: Prepared,
    finished: Finished,
    *,
    audit_rate: float,
) -> dict[str, Any]:
    """Judge the map, store what people will look at, and return the columns of the finished row."""
    begun = time.monotonic()
    # Storing mostly waits for the disk, so the two pictures wait together.
    values, reconstruction = await asyncio.gather(
        asyncio.to_thread(_judged, ledger, row, model, profile, finished, audit_rate),
        asyncio.to_thread(_kept_reconstruction, ledger, finished),
    )
    now = time.monotonic()
    spent_s = {
        **prepared.spent_s,
        "inference": finished.inference_s,
        "postprocess": now - begun,
        "total": now - prepared.started,
    }
    return {
        **values,
        **reconstruction,
        "brightness": prepared.brightness,
        "sharpness": prepared.sharpness,
        "latency_ms": {stage: round(1000 * seconds, 3) for stage, seconds in spent_s.items()},
    }


def _judged(
    ledger: Ledger, row: InspectionRow, model: Model, profile: str, finished: Finished, audit_rate: float
) -> dict[str, Any]:
    raw, calibration = finished.result, model.manifest.calibration[profile]
    limits = ledger.thresholds(row.recipe, profile, model.hash, calibration.suggested)
    size = (row.image_height_px, row.image_width_px)
    judged = judge(raw, calibration, Thresholds(review=limits.review, reject=limits.reject), size)
    heatmap, scale = render.encode_map(raw.map)
    audit = judged.verdict is Verdict.PASS and drawn_for_audit(row.id, audit_rate)
    return {
        "status": "done",
        "verdict": judged.verdict.value,
        "score_raw": raw.score,
        "score": judged.score,
        "threshold_id": limits.id,
        "review": limits.review,
        "reject": limits.reject,
        "margin": min(abs(judged.score - limits.review), abs(judged.score - limits.reject)),
        "wanted": audit or judged.verdict is Verdict.REVIEW,
        "audit": audit,
        "regions": judged.regions,
        "heatmap_sha256": ledger.blobs.put(heatmap),
        "heatmap_media_type": render.PNG,
        "heatmap_scale": scale,
        "heatmap_max": calibration.map_max,
        "profile": profile,
        **model.columns,
    }


def _kept_reconstruction(ledger: Ledger, finished: Finished) -> dict[str, Any]:
    stored = ledger.blobs.put(render.encode_reconstruction(finished.result.reconstruction))
    return {"reconstruction_sha256": stored, "reconstruction_media_type": render.PNG}


def is_final(error: Exception) -> bool:
    """Whether another attempt would fail in the same way."""
    return isinstance(error, (EngineOutputError, BlobMissing, InspectionError))


def failure(error: Exception) -> dict[str, Any]:
    """The columns of an inspection that ended in an ERROR; what the engine said stays in the log."""
    code, detail = "engine-failed", "the model failed on this image; the log has the reason under its id"
    if isinstance(error, EngineOutputError):
        code, detail = "engine-output", f"the model gave no usable answer: {error}"
    elif isinstance(error, BlobMissing):
        code, detail = "image-missing", "the stored image is gone, so it cannot be inspected any more"
    elif isinstance(error, (InspectionError, OSError, OperationalError, BlobsUnavailable)):
        known = as_inspection_error(error)
        code, detail = known.code, known.detail
    return failed(code, detail)


def failed(code: str, detail: str) -> dict[str, Any]:
    return {"status": "failed", "verdict": "ERROR", "error_code": code, "error_detail": detail}


def expired() -> dict[str, Any]:
    detail = "the deadline of this inspection passed before it had a result"
    return {"status": "expired", "verdict": "EXPIRED", "error_code": "deadline", "error_detail": detail}
