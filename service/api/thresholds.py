"""The two limits of a recipe: versions, what a change would do, suggestions."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from models.bundle import Manifest, Thresholds
from service.access.principal import Admin, Operator
from service.api.deps import Cursor, RecipeName, Services, Serving, id_text
from service.api.threshold_documents import (
    FlipOut,
    FlipsOut,
    Hash,
    HistogramOut,
    LimitsOut,
    PreviewIn,
    PreviewOut,
    ReevaluatedOut,
    RestoreIn,
    ShareOut,
    StratumOut,
    SuggestIn,
    SuggestionOut,
    SuggestionsOut,
    ThresholdsIn,
    VerdictsOut,
    Version,
    VersionOut,
)
from service.db.repository import models
from service.db.tables import ThresholdRow
from service.errors import InspectionError, problem_docs
from service.metadata import Moment, ProfileName
from service.recipes.limits import InForce, Limits, Place, Preview
from service.recipes.whatif import VERDICTS, Estimate, decide

router = APIRouter(prefix="/v1/recipes/{recipe}/thresholds", tags=["thresholds"])


def place(
    recipe: RecipeName,
    serving: Serving,
    model: Annotated[Hash | None, Query(description="bundle [default: the recipe's active one]")] = None,
    profile: Annotated[ProfileName | None, Query(description="[default: the recipe's]")] = None,
) -> Place:
    """Whose limits the request is about."""
    served = serving.engines.serving(recipe)
    manifest = served.manifest if model in (None, served.hash) else _manifest(serving, model)
    name = profile if profile is not None else serving.engines.default_profile(recipe, manifest)
    if name not in manifest.profiles:
        known = sorted(manifest.profiles)
        detail = f"profile {name!r} is not in this model's bundle; known: {', '.join(known)}"
        raise InspectionError(422, "unknown-profile", detail, extra={"profiles": known})
    return Place.of(recipe, model or served.hash, manifest, name)


def _manifest(serving: Services, model_hash: str) -> Manifest:
    with serving.database.read() as session:
        row = models.get(session, model_hash)
    if row is None or row.manifest is None:
        raise InspectionError(404, "unknown-model", f"no model {model_hash} is registered here")
    return Manifest.model_validate(row.manifest)


def manifest_of(serving: Services, where: Place) -> Manifest:
    """Of the bundle whose limits these are."""
    served = serving.engines.serving(where.recipe)
    return served.manifest if where.model_hash == served.hash else _manifest(serving, where.model_hash)


Where = Annotated[Place, Depends(place)]


@router.get("", summary="Limits in force, and their history", responses=problem_docs(404, 422, 503))
async def get_thresholds(
    serving: Serving,
    who: Operator,
    where: Where,
    below: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="versions before this one")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> LimitsOut:
    """Of a recipe under a model and profile; every version with who set it and why."""
    limits = Limits(serving.database)
    current = await asyncio.to_thread(limits.in_force, where)
    history = await asyncio.to_thread(limits.history, where, below, limit)
    return LimitsOut(
        recipe=where.recipe,
        model_hash=where.model_hash,
        profile=where.profile,
        current=_current(current),
        history=[_version(row) for row in history],
    )


@router.post("", status_code=201, summary="Set new limits", responses=problem_docs(404, 409, 422, 503))
async def set_thresholds(
    body: ThresholdsIn, response: Response, serving: Serving, who: Admin, where: Where
) -> VersionOut:
    """In force at once, for what is decided from now on; look at the preview first."""
    row = await asyncio.to_thread(
        Limits(serving.database).set, who, where, body.limits, why=body.why, based_on=body.based_on
    )
    response.headers["Location"] = f"/v1/recipes/{where.recipe}/thresholds/{row.version}/verdicts"
    return _version(row)


@router.post("/preview", summary="What other limits would change", responses=problem_docs(404, 422, 503))
async def preview_thresholds(body: PreviewIn, serving: Serving, who: Operator, where: Where) -> PreviewOut:
    """Over stored scores under the recipe's present mask; nothing is changed."""
    before, limits = id_text(body.flips_cursor), Limits(serving.database, serving.scores)

    def run() -> Preview:
        span = limits.span(where, body.since, body.until)
        return limits.preview(where, body.limits, span, body.limit, body.bins)

    found = await asyncio.to_thread(run)
    what = found.found
    return PreviewOut(
        based_on=found.base.version,
        inspections=what.inspections,
        flips=_flips(found, body, before),
        pass_rate=ShareOut.of(what.passes),
        review_rate=ShareOut.of(what.review_load),
        reject_rate=ShareOut.of(what.rejects),
        escape=_estimate(what.escape),
        overkill=_estimate(what.overkill),
        strata=[StratumOut(**vars(note)) for note in what.strata],
        warnings=what.warnings,
        histogram=HistogramOut(**vars(found.histogram)),
    )


@router.post("/suggest", summary="Limits at target rates", responses=problem_docs(404, 422, 503))
async def suggest_thresholds(
    body: SuggestIn, serving: Serving, who: Operator, where: Where
) -> SuggestionsOut:
    """From what people reviewed, from stored scores, and from the bundle; what can be had, best first."""
    limits = Limits(serving.database, serving.scores)

    def run() -> tuple[InForce, list[SuggestionOut]]:
        span = limits.span(where, body.since, body.until)
        found = limits.suggest(where, span, body.limit, body.reject_rate, body.review_rate)
        return limits.in_force(where), [SuggestionOut(**vars(suggestion)) for suggestion in found]

    base, found = await asyncio.to_thread(run)
    return SuggestionsOut(based_on=base.version, recommended=found[0], suggestions=found)


@router.post(
    "/{version}/restore",
    status_code=201,
    summary="Set the limits of an old version again",
    responses=problem_docs(404, 409, 422, 503),
)
async def restore_thresholds(
    version: Version, body: RestoreIn, serving: Serving, who: Admin, where: Where
) -> VersionOut:
    """As a new version."""
    row = await asyncio.to_thread(
        Limits(serving.database).restore, who, where, version, why=body.why, based_on=body.based_on
    )
    return _version(row)


@router.get(
    "/{version}/verdicts",
    summary="What a version would have decided",
    responses=problem_docs(404, 422, 503),
)
async def get_verdicts(
    version: Version,
    serving: Serving,
    who: Operator,
    where: Where,
    since: Annotated[Moment | None, Query()] = None,
    until: Annotated[Moment | None, Query()] = None,
    changed: Annotated[bool, Query(description="only where it differs from what was decided")] = False,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> VerdictsOut:
    """A view of stored inspections; what was decided is never rewritten."""
    before, limits = id_text(cursor), Limits(serving.database)

    def run() -> list[ReevaluatedOut]:
        row = limits.version(where, version)
        span = limits.span(where, since, until)
        wanted = Thresholds(review=row.review, reject=row.reject)
        found = limits.reevaluated(wanted, span, changed=changed, before=before, limit=limit + 1)
        return [ReevaluatedOut(**vars(each)) for each in found]

    items = await asyncio.to_thread(run)
    following = items[limit - 1].id if len(items) > limit else None
    return VerdictsOut(version=version, items=items[:limit], next=following)


def _version(row: ThresholdRow) -> VersionOut:
    names = ("version", "review", "reject", "who", "why", "created_at")
    return VersionOut.model_validate({name: getattr(row, name) for name in names})


def _current(found: InForce) -> VersionOut:
    if found.row is not None:
        return _version(found.row)
    limits = found.limits
    return VersionOut(
        version=0,
        review=limits.review,
        reject=limits.reject,
        who="inlier-service",
        why="suggested by bundle",
        created_at=None,
    )


def _estimate(found: Estimate) -> ShareOut:
    return ShareOut.of(found.share, found.reason)


def _flips(found: Preview, body: PreviewIn, before: str | None) -> FlipsOut:
    stored, what = found.stored, found.found
    rows = [int(row) for row in what.flipping if before is None or stored.ids[row] < before]
    page = rows[: body.flips_limit]
    old, new = decide(stored.scores, found.base.limits), decide(stored.scores, body.limits)
    items: list[dict[str, Any]] = [
        {
            "id": stored.ids[row],
            "score": float(stored.scores[row]),
            "before": VERDICTS[old[row]],
            "after": VERDICTS[new[row]],
            "decided": VERDICTS[stored.decided[row]],
            "review_state": str(stored.state[row]),
        }
        for row in page
    ]
    more = bool(page) and len(rows) > len(page)
    return FlipsOut(
        total=int(what.flipping.size),
        kinds=what.flips,
        items=[FlipOut(**item) for item in items],
        next=stored.ids[page[-1]] if more else None,
    )
