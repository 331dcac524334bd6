"""The documents of the comparison of a shadow with the model that inspects."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from service.api.threshold_documents import ShareOut
from service.recipes.whatif import VERDICTS
from service.shadow.comparison import Comparison, Latency, Pair

Decided = Literal["PASS", "REVIEW", "REJECT"]


class CellOut(BaseModel):
    active: Decided
    shadow: Decided
    count: int


class LatencyOut(BaseModel):
    p50_ms: float | None
    p95_ms: float | None


class FailureOut(BaseModel):
    who: str = Field(description="the process that could not load it")
    why: str
    at: datetime


class SideOut(BaseModel):
    model_hash: str
    score: float = Field(description="calibrated; each model has a scale of its own")
    verdict: Decided


class PairOut(BaseModel):
    inspection: str
    created_at: datetime
    active: SideOut
    shadow: SideOut
    review_state: Literal["none", "good", "defective", "unsure"]
    page: str = Field(description="result page for a person")


class ShadowOut(BaseModel):
    """A shadow beside the model that inspects."""

    model_hash: str
    recipe: str
    active_hash: str = Field(description="what inspects the recipe now")
    shadowing: bool = Field(description="it does so now")
    since: datetime | None = Field(description="of this time as a shadow; null: it never was one")
    until: datetime | None = Field(description="when it ended")
    eligible: int = Field(description="finished by another model, among the newest 10 000")
    scored: int = Field(description="by the shadow, of these")
    unscored: int = Field(description="skipped for want of time, failed, or not yet scored")
    whole: bool = Field(description="false: there are older ones, which were not counted")
    confusion: list[CellOut] = Field(description="nine cells: what each decided")
    agreement: ShareOut = Field(description="share of the same verdict among those scored")
    active_latency: LatencyOut = Field(description="of the engine, among others in its calls")
    shadow_latency: LatencyOut = Field(description="of the engine, alone in its calls")
    failures: list[FailureOut] = Field(description="processes that could not load it, newest first")
    items: list[PairOut] = Field(description="newest first")
    next: str | None = Field(description="`cursor` of the following page; null on the last one")


def document(found: Comparison, model_hash: str, recipe: str, active: str, limit: int) -> ShadowOut:
    """A comparison as the API shows it; it holds one pair more than the page if another follows."""
    window, items = found.window, [_pair(pair) for pair in found.pairs[:limit]]
    eligible = 0 if window is None else window.eligible
    return ShadowOut(
        model_hash=model_hash,
        recipe=recipe,
        active_hash=active,
        shadowing=window is not None and window.span.until is None,
        since=None if window is None else window.span.since,
        until=None if window is None else window.span.until,
        eligible=eligible,
        scored=found.scored,
        unscored=max(0, eligible - found.scored),
        whole=window is None or window.whole,
        confusion=[
            CellOut.model_validate({"active": a, "shadow": s, "count": found.confusion.get((a, s), 0)})
            for a in VERDICTS
            for s in VERDICTS
        ],
        agreement=ShareOut.of(found.agreement, "nothing was scored yet"),
        active_latency=_latency(found.active),
        shadow_latency=_latency(found.shadow),
        failures=[FailureOut(who=row.who, why=row.why, at=row.created_at) for row in found.failures],
        items=items,
        next=items[-1].inspection if len(found.pairs) > limit else None,
    )


def _latency(found: Latency) -> LatencyOut:
    return LatencyOut(p50_ms=found.p50_ms, p95_ms=found.p95_ms)


def _pair(pair: Pair) -> PairOut:
    row = pair.score
    active = {"model_hash": row.active_hash, "score": row.active_score, "verdict": row.active_verdict}
    shadow = {"model_hash": row.model_hash, "score": row.score, "verdict": row.verdict}
    return PairOut.model_validate(
        {
            "inspection": row.inspection_id,
            "created_at": pair.created_at,
            "active": active,
            "shadow": shadow,
            "review_state": pair.review_state,
            "page": f"/inspections/{row.inspection_id}",
        }
    )
