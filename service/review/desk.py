"""Everything a person needs to decide on one inspection, gathered from the store.

Everything here blocks and is called in a thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.bundle import Manifest
from service import render
from service.blobs import BlobMissing
from service.db.repository import filters, models, recipes, reviews, search
from service.db.repository.scores import Span
from service.db.tables import InspectionRow, ReviewRow
from service.ledger import Ledger
from service.recipes.memory import ScoreMemory
from service.recipes.whatif import Stored

_SCORES = 5000  # newest inspections whose scores make the histogram
_BINS = 56
_FRESH_S = 30.0
_EARLIER = 8
_LOW = -3.0  # a typical part scores 0 with spread 1
_ABOVE = 3.0  # shown beyond the reject limit


@dataclass(frozen=True)
class Chart:
    """Score, limits and other scores on one axis 0..1000; heights are shares of the highest bar."""

    bars: Sequence[tuple[float, float, dict[str, float]]]  # left, width, {state: height}, root of the count
    review: float
    reject: float
    score: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Desk:
    """One inspection with its surroundings."""

    row: InspectionRow
    reviews: Sequence[ReviewRow]
    earlier: Sequence[InspectionRow]  # of the same serial number, newest first
    reasons: Sequence[str]
    chart: Chart | None
    pixel_threshold: float | None  # map value from which a region is marked
    outlines: str  # of the map at that value, SVG path in pixels of the image


def open_desk(ledger: Ledger, memory: ScoreMemory, identifier: str) -> Desk:
    """InspectionError 404 for an unknown inspection."""
    row = ledger.get(identifier)
    with ledger.database.read() as session:
        said = reviews.of(session, identifier)
        model = models.get(session, row.model_hash)
        recipe = recipes.get(session, row.recipe)
        earlier: Sequence[InspectionRow] = ()
        if row.serial is not None:
            same = filters.Filter(equal={"serial": row.serial})
            found = search.page(session, same, limit=_EARLIER + 1, budget_s=search.BUDGET_S).rows
            earlier = [other for other in found if other.id != row.id][:_EARLIER]
    manifest = None if model is None or model.manifest is None else Manifest.model_validate(model.manifest)
    threshold = _pixel_threshold(row, manifest)
    chart = None
    if row.score is not None and row.review is not None and row.reject is not None:
        span = Span(row.recipe, row.model_hash, row.profile, row.mask_id)
        chart = among_others(memory, ledger, span, row.score, row.review, row.reject)
    return Desk(
        row=row,
        reviews=said,
        earlier=earlier,
        reasons=[] if recipe is None else recipe.reasons,
        chart=chart,
        pixel_threshold=threshold,
        outlines=_outlines(ledger, row, threshold),
    )


def _pixel_threshold(row: InspectionRow, manifest: Manifest | None) -> float | None:
    """As `service.verdict` marks regions: the map value that makes the score reach the review limit."""
    if manifest is None or row.review is None or row.score_raw is None:
        return None
    calibration = manifest.calibration.get(row.profile)
    return None if calibration is None else calibration.score.raw(row.review)


def _outlines(ledger: Ledger, row: InspectionRow, threshold: float | None) -> str:
    if threshold is None or row.heatmap_sha256 is None or row.heatmap_scale is None:
        return ""
    try:
        amap = render.decode_map(ledger.blobs.get(row.heatmap_sha256), row.heatmap_scale)
    except BlobMissing:
        return ""
    return render.outlines(amap, threshold, (row.image_height_px, row.image_width_px))


def among_others(
    memory: ScoreMemory, ledger: Ledger, span: Span, score: float, review: float, reject: float
) -> Chart:
    """A score among the newest ones of its span."""
    return draw(score, review, reject, memory.of(ledger.database, span, _SCORES, _FRESH_S))


def draw(score: float, review: float, reject: float, stored: Stored) -> Chart:
    """The scores of a recipe, with this one and both limits among them."""
    low, high = min(_LOW, score - 0.5), max(reject + _ABOVE, score + 0.5)
    edges = np.linspace(low, high, _BINS + 1)
    kept = np.clip(stored.scores, low, high)
    states = {"good": stored.state == "good", "defective": stored.state == "defective"}
    states["unreviewed"] = ~(states["good"] | states["defective"])
    counts = {name: np.histogram(kept[chosen], edges)[0] for name, chosen in states.items()}
    sums = np.sum(list(counts.values()), axis=0)
    # Areas grow with the root of the count, so that a single part beyond a limit is seen beside thousands.
    tall = np.sqrt(sums / max(1, sums.max()))

    def at(value: float) -> float:
        return round(1000 * (min(max(value, low), high) - low) / (high - low), 1)

    bars: list[tuple[float, float, dict[str, Any]]] = []
    width = 1000 / _BINS
    for number in range(_BINS):
        heights = {
            name: float(tall[number] * count[number] / sums[number])
            for name, count in counts.items()
            if count[number]
        }
        if heights:
            bars.append((round(number * width, 1), round(width - 1.5, 1), heights))
    return Chart(bars, at(review), at(reject), at(score), low, high, len(stored))
