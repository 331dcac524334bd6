"""The documents of the thresholds calls."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from models.bundle import Thresholds
from service.api.bodies import Body, Uuid
from service.metadata import WHOLE, Moment
from service.recipes.intervals import Share

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Why = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*\S[^\x00]*$")]
Score = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]
Version = Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE]
_PREVIEW_ROWS = 10_000


class LimitsIn(Body):
    review: Score = Field(description="calibrated score from which a person decides")
    reject: Score = Field(description="calibrated score from which the part is rejected")

    @model_validator(mode="after")
    def _ordered(self) -> "LimitsIn":
        if self.review > self.reject:
            raise ValueError("review must not be above reject")
        return self

    @property
    def limits(self) -> Thresholds:
        return Thresholds(review=self.review, reject=self.reject)


class ThresholdsIn(LimitsIn):
    why: Why = Field(description="kept with the version")
    based_on: Version = Field(description="the version this change replaces; 0: the bundle's suggestion")


class RestoreIn(Body):
    why: Why
    based_on: Version = Field(description="the version in force that this replaces")


class SpanIn(Body):
    since: Moment | None = Field(default=None, description="inspected at or after, with time zone")
    until: Moment | None = Field(default=None, description="inspected before, with time zone")
    limit: Annotated[int, Field(ge=1, le=100_000), WHOLE] = Field(
        default=_PREVIEW_ROWS, description="newest inspections looked at"
    )


class PreviewIn(LimitsIn, SpanIn):
    bins: Annotated[int, Field(ge=1, le=500), WHOLE] = Field(default=60, description="of the histogram")
    flips_limit: Annotated[int, Field(ge=0, le=500), WHOLE] = Field(
        default=50, description="flipping inspections on a page"
    )
    flips_cursor: Uuid | None = Field(default=None, description="from `flips.next`")


class SuggestIn(SpanIn):
    reject_rate: float = Field(default=0.001, gt=0, lt=0.5, description="share of good parts to be rejected")
    review_rate: float = Field(
        default=0.01, gt=0, lt=0.5, description="share of good parts at or above the review limit"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "SuggestIn":
        if self.reject_rate > self.review_rate:
            raise ValueError("review_rate must not be below reject_rate: it includes what is rejected")
        return self


class VersionOut(BaseModel):
    version: int
    review: float
    reject: float
    who: str
    why: str
    created_at: datetime | None = Field(description="null for the bundle's suggestion, before its first use")


class LimitsOut(BaseModel):
    recipe: str
    model_hash: str
    profile: str
    current: VersionOut
    history: list[VersionOut] = Field(description="newest first, at most `limit`; `below` continues")


class FlipOut(BaseModel):
    id: str
    score: float
    before: str = Field(description="verdict under the limits in force")
    after: str = Field(description="verdict under the previewed limits")
    decided: str = Field(description="what was decided at the time")
    review_state: str


class FlipsOut(BaseModel):
    total: int
    kinds: dict[str, int] = Field(description="how many flip between what: `PASS->REVIEW`")
    items: list[FlipOut] = Field(description="newest first")
    next: str | None = Field(description="`flips_cursor` of the following page; null on the last one")


class ShareOut(BaseModel):
    value: float | None = Field(description="null when it cannot be estimated; `reason` says why")
    low: float | None = Field(description="lower end of the 95 % interval")
    high: float | None = Field(description="upper end")
    sample: int = Field(description="inspections it rests on")
    method: str | None = Field(description="wilson, bootstrap, or wilson-effective")
    reason: str | None

    @classmethod
    def of(cls, share: Share | None, reason: str | None = "no inspections in this span") -> "ShareOut":
        """A share, or why there is none."""
        if share is None:
            return cls(value=None, low=None, high=None, sample=0, method=None, reason=reason)
        return cls(**vars(share), reason=None)


class StratumOut(BaseModel):
    verdict: str = Field(description="as decided at the time")
    inspections: int
    reviewed: int = Field(description="that count as a sample; of PASS only random audits")
    weight: float | None = Field(description="inspections that one of them stands for")


class HistogramOut(BaseModel):
    edges: list[float] = Field(description="of the bins, one more than counts")
    good: list[int]
    defective: list[int]
    unreviewed: list[int] = Field(description="also those a person was unsure of")


class PreviewOut(BaseModel):
    based_on: int = Field(description="version in force that is compared with; send it with the change")
    inspections: int
    flips: FlipsOut
    pass_rate: ShareOut
    review_rate: ShareOut = Field(description="the review load")
    reject_rate: ShareOut
    escape: ShareOut = Field(description="share of defective parts that would PASS")
    overkill: ShareOut = Field(description="share of good parts that would be rejected")
    strata: list[StratumOut]
    warnings: list[str]
    histogram: HistogramOut


class SuggestionOut(BaseModel):
    source: str = Field(description="reviewed, stored or bundle")
    review: float
    reject: float
    review_interval: tuple[float, float] | None = Field(description="95 %, bootstrap")
    reject_interval: tuple[float, float] | None
    sample: int = Field(description="scores it rests on")
    contamination: float | None = Field(description="estimated share of parts that are not good")


class SuggestionsOut(BaseModel):
    based_on: int
    recommended: SuggestionOut
    suggestions: list[SuggestionOut]


class ReevaluatedOut(BaseModel):
    id: str
    created_at: datetime
    score: float
    decided: str = Field(description="what was decided at the time; it stays")
    reevaluated: str = Field(description="what this version would have decided")
    review_state: str


class VerdictsOut(BaseModel):
    version: int
    items: list[ReevaluatedOut] = Field(description="newest first")
    next: str | None = Field(description="`cursor` of the following page; null on the last one")
