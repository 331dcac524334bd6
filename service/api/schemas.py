"""The documents the API answers with."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from service.db.tables import InspectionRow

Status = Literal["queued", "running", "done", "failed", "expired"]
AnyVerdict = Literal["PASS", "REVIEW", "REJECT", "ERROR", "EXPIRED"]


class ScoreOut(BaseModel):
    raw: float = Field(description="mean of the map's highest pixels; about 1 where nothing is wrong")
    calibrated: float = Field(
        description="robust standard deviations above a typical part; decides the verdict"
    )


class ThresholdsOut(BaseModel):
    id: str | None = Field(description="id of the version that was used")
    version: int | None = Field(description="its number within recipe, model and profile")
    review: float = Field(description="calibrated score from which a person decides")
    reject: float = Field(description="calibrated score from which the part is rejected")


class RegionOut(BaseModel):
    x: int = Field(description="left edge of the box, pixels of the original image")
    y: int = Field(description="top edge of the box")
    width: int
    height: int
    area_px: int = Field(description="area over the pixel threshold, pixels of the original image")
    peak: float = Field(description="highest map value inside")
    mean: float = Field(description="mean map value inside")


class ModelOut(BaseModel):
    name: str
    version: str
    hash: str = Field(description="sha256 of the bundle's manifest")


class ImageOut(BaseModel):
    sha256: str
    media_type: str
    width: int = Field(description="pixels, after the EXIF orientation was applied")
    height: int


class HeatmapOut(BaseModel):
    scale: float = Field(description="map units per count of the 16-bit image (`?format=raw`)")
    top: float = Field(description="map value at the top of the fixed colour scale")


class ErrorOut(BaseModel):
    code: str
    detail: str


class ReviewStateOut(BaseModel):
    """What people said of an inspection, after all."""

    state: Literal["none", "good", "defective", "unsure"]
    revision: int = Field(description="grows with every review; the next one names it")
    disagreement: bool = Field(description="a person overruled a PASS or a REJECT")
    wanted: bool = Field(description="a person should look at it")
    audit: bool = Field(description="a PASS that was drawn at random to be looked at")
    claimed_by: str | None = Field(description="who is looking at it")
    claimed_until: datetime | None


class LinksOut(BaseModel):
    self: str
    reviews: str
    page: str = Field(description="result page for a person")
    image: str
    heatmap: str | None = None
    reconstruction: str | None = None
    difference: str | None = None


class InspectionOut(BaseModel):
    """One inspection; result fields are null until `status` is `done`."""

    id: str = Field(description="UUIDv7: ids sort by arrival")
    status: Status
    verdict: AnyVerdict | None = Field(description="ERROR and EXPIRED are never PASS; null while unfinished")
    created_at: datetime
    finished_at: datetime | None
    score: ScoreOut | None
    thresholds: ThresholdsOut | None
    regions: list[RegionOut] | None = Field(description="strongest first; empty for PASS, never for the rest")
    recipe: str
    part_id: str | None
    serial: str | None
    lot: str | None
    line: str | None
    station: str | None
    captured_at: datetime | None
    attributes: dict[str, Any]
    review: ReviewStateOut
    mask_id: str | None = Field(description="ignore mask it is inspected with")
    profile: str = Field(description="reconstruction profile that ran")
    model: ModelOut
    latency_ms: dict[str, float] = Field(
        description="decode, store, preprocess, queue, inference, postprocess and total"
    )
    image: ImageOut
    heatmap: HeatmapOut | None
    error: ErrorOut | None
    links: LinksOut


class PageOut(BaseModel):
    items: list[InspectionOut] = Field(description="newest first")
    next: str | None = Field(description="address of the next page; null on the last one")


_SAME = (
    *("id", "status", "verdict", "created_at", "finished_at", "profile", "latency_ms", "attributes"),
    *("recipe", "part_id", "serial", "lot", "line", "station", "captured_at", "mask_id"),
)


def _links(row: InspectionRow) -> LinksOut:
    own = f"/v1/inspections/{row.id}"
    links = LinksOut(self=own, reviews=f"{own}/reviews", page=f"/inspections/{row.id}", image=f"{own}/image")
    if row.heatmap_sha256 is not None:
        links.heatmap = f"{own}/heatmap"
    if row.reconstruction_sha256 is not None:
        links.reconstruction, links.difference = f"{own}/reconstruction", f"{own}/difference"
    return links


def _thresholds(row: InspectionRow) -> ThresholdsOut | None:
    if row.review is None or row.reject is None:
        return None
    version = row.threshold.version if row.threshold is not None else None
    return ThresholdsOut(id=row.threshold_id, version=version, review=row.review, reject=row.reject)


def _review(row: InspectionRow) -> ReviewStateOut:
    return ReviewStateOut.model_validate(
        {
            "state": row.review_state or "none",
            "revision": row.review_revision or 0,
            "disagreement": bool(row.disagreement),
            "wanted": bool(row.wanted),
            "audit": bool(row.audit),
            "claimed_by": row.claimed_by,
            "claimed_until": row.claimed_until,
        }
    )


def document(row: InspectionRow) -> InspectionOut:
    """A stored row as the API shows it."""
    score = None
    if row.score is not None and row.score_raw is not None:
        score = ScoreOut(raw=row.score_raw, calibrated=row.score)
    heatmap = None
    if row.heatmap_scale is not None and row.heatmap_max is not None:
        heatmap = HeatmapOut(scale=row.heatmap_scale, top=row.heatmap_max)
    error = None
    if row.error_code is not None:
        error = ErrorOut(code=row.error_code, detail=row.error_detail or "")
    regions = None if row.regions is None else [RegionOut(**region) for region in row.regions]
    return InspectionOut(
        **{name: getattr(row, name) for name in _SAME},
        score=score,
        thresholds=_thresholds(row),
        review=_review(row),
        regions=regions,
        model=ModelOut(name=row.model_name, version=row.model_version, hash=row.model_hash),
        image=ImageOut(
            sha256=row.image_sha256,
            media_type=row.image_media_type,
            width=row.image_width_px,
            height=row.image_height_px,
        ),
        heatmap=heatmap,
        error=error,
        links=_links(row),
    )
