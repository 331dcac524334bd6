"""Bundles: which there are, what they know, which inspects what, and going back."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import ValidationError

from service import bundles
from service.access.principal import Admin, Operator
from service.api.deps import Cursor, Serving, id_text
from service.api.model_documents import (
    ActivatedOut,
    ActivateIn,
    EventOut,
    EventsOut,
    ModelDetail,
    ModelOut,
    ModelsOut,
    RecipeWhyIn,
    RegisterIn,
    WhyIn,
)
from service.db.tables import ModelEventRow, ModelRow
from service.errors import InspectionError, problem_docs, validation_error
from service.metadata import Name
from service.model_life import Listed, ModelBook

router = APIRouter(prefix="/v1/models", tags=["models"])
ModelHash = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="sha256 of the bundle's manifest")]
# The report's own style and pictures, and nothing else: no script, no request, no frame around it.
REPORT_CSP = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox"
)


def shown(row: ModelRow, listed: Listed, own: str) -> dict[str, Any]:
    """The values of a `ModelOut`."""
    manifest = row.manifest or {}
    training, at = manifest.get("training_data", {}), f"{router.prefix}/{row.hash}"
    names = ("hash", "name", "version", "state", "registered_at", "registered_by")
    return {
        **{name: getattr(row, name) for name in names},
        "recipes": listed.uses.get(row.hash, []),
        "shadowed_recipes": listed.shadows.get(row.hash, []),
        "own": row.hash == own,
        "profiles": sorted(manifest.get("profiles", {})),
        "training_images": training.get("images"),
        "estimated_contamination": training.get("estimated_contamination"),
        "contamination_interval": training.get("contamination_interval"),
        "metrics": manifest.get("metrics", {}),
        "links": {"self": at, "report": f"{at}/report", "audit": f"{at}/audit", "events": f"{at}/events"},
    }


def _parse(data: bytes) -> RegisterIn:
    try:
        return RegisterIn.model_validate_json(data)
    except ValidationError as error:
        raise validation_error([{**item, "loc": ("body", *item["loc"])} for item in error.errors()]) from None


def _events(rows: list[ModelEventRow], limit: int) -> EventsOut:
    names = EventOut.model_fields
    items = [EventOut(**{name: getattr(row, name) for name in names}) for row in rows[:limit]]
    return EventsOut(items=items, next=items[-1].id if len(rows) > limit else None)


@router.get("", summary="Models, the last registered first", responses=problem_docs(422, 503))
async def list_models(
    serving: Serving,
    who: Operator,
    name: Annotated[Name | None, Query()] = None,
    state: Annotated[Literal["candidate", "shadow", "active", "retired"] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> ModelsOut:
    """With what each says of itself and where it is used."""
    book = ModelBook(serving.database)
    found = await asyncio.to_thread(book.listed, name=name, state=state, limit=limit)
    own = serving.engines.own.hash
    return ModelsOut(items=[ModelOut(**shown(row, found, own)) for row in found.rows])


@router.post(
    "",
    status_code=201,
    summary="Register a bundle",
    responses={
        200: {"model": ModelDetail, "description": "It was registered"},
        **problem_docs(415, 422, 503),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": RegisterIn.model_json_schema()}},
        }
    },
)
async def register_model(request: Request, response: Response, serving: Serving, who: Admin) -> ModelDetail:
    """By its place in the folder of bundles; every file is compared with its hash, and nothing of it is run.

    Archives are not taken: unpack a bundle into the folder.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type != "application/json":
        detail = (
            "bundles are registered by their path, as application/json; archives are not taken: "
            "unpack the bundle into the folder of bundles (INLIER_BUNDLES) first"
        )
        raise InspectionError(415, "unsupported-media-type", detail)
    body = _parse(await request.body())
    book = ModelBook(serving.database)

    def run() -> tuple[ModelRow, bool, Listed]:
        found = bundles.locate(serving.settings.bundles, body.path)
        row, new = book.register(who, found, serving.settings.trusted_keys)
        return row, new, book.one(row.hash)

    row, new, listed = await asyncio.to_thread(run)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"{router.prefix}/{row.hash}"
    return ModelDetail(**shown(row, listed, serving.engines.own.hash), manifest=row.manifest)


@router.get("/events", summary="What was done with models", responses=problem_docs(422, 503))
async def list_events(
    serving: Serving,
    who: Operator,
    recipe: Annotated[Name | None, Query()] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> EventsOut:
    """Registered, activated, rolled back, shadowed, retired: newest first."""
    book, before = ModelBook(serving.database), id_text(cursor)
    rows = await asyncio.to_thread(
        book.events, model_hash=None, recipe=recipe, before=before, limit=limit + 1
    )
    return _events(list(rows), limit)


@router.post("/rollback", summary="Go back to the model before", responses=problem_docs(404, 409, 422, 503))
async def rollback_model(body: RecipeWhyIn, serving: Serving, who: Admin) -> ActivatedOut:
    """One call; the model that inspected the recipe before is active again."""
    model = await serving.engines.rollback(body.recipe, who, body.why)
    return ActivatedOut(model_hash=model.hash, recipes=[body.recipe])


@router.get("/{model_hash}", summary="One model", responses=problem_docs(404, 422, 503))
async def get_model(model_hash: ModelHash, serving: Serving, who: Operator) -> ModelDetail:
    """With its manifest."""
    found = await asyncio.to_thread(ModelBook(serving.database).one, model_hash)
    row = found.rows[0]
    return ModelDetail(**shown(row, found, serving.engines.own.hash), manifest=row.manifest)


@router.get(
    "/{model_hash}/report",
    summary="The training report, for a person",
    response_class=Response,
    responses={
        200: {"description": "HTML", "content": {"text/html": {"schema": {"type": "string"}}}},
        **problem_docs(404, 422, 503),
    },
)
async def get_report(model_hash: ModelHash, serving: Serving, who: Operator) -> Response:
    """As the trainer wrote it, shown without scripts and without requests to anywhere."""
    book = ModelBook(serving.database)
    html = await asyncio.to_thread(lambda: bundles.read_file(book.get(model_hash), "report.html"))
    headers = {
        "Content-Security-Policy": REPORT_CSP,
        "X-Frame-Options": "SAMEORIGIN",  # as frame-ancestors says; our own page shows it in a frame
        "Cache-Control": "private, no-cache",
    }
    return Response(html, media_type="text/html", headers=headers)


@router.get("/{model_hash}/events", summary="A model's history", responses=problem_docs(404, 422, 503))
async def get_events(
    model_hash: ModelHash,
    serving: Serving,
    who: Operator,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> EventsOut:
    """What was done with it, and what came into its place; newest first."""
    book, before = ModelBook(serving.database), id_text(cursor)

    def run() -> list[ModelEventRow]:
        book.get(model_hash)
        return list(book.events(model_hash=model_hash, recipe=None, before=before, limit=limit + 1))

    return _events(await asyncio.to_thread(run), limit)


@router.post("/{model_hash}/activate", summary="Let a model inspect", responses=problem_docs(404, 422, 503))
async def activate_model(
    model_hash: ModelHash, body: ActivateIn, serving: Serving, who: Admin
) -> ActivatedOut:
    """A recipe, or all that exist; it is loaded and warmed up first, and on any error the old one stays."""
    if body.recipe is not None:
        names = [body.recipe]
    else:
        names = await asyncio.to_thread(ModelBook(serving.database).recipes)
    for name in names:
        await serving.engines.activate(name, model_hash, who, body.why)
    return ActivatedOut(model_hash=model_hash, recipes=names)


@router.post(
    "/{model_hash}/retire",
    summary="Take a model out of the choice",
    responses=problem_docs(404, 409, 422, 503),
)
async def retire_model(model_hash: ModelHash, body: WhyIn, serving: Serving, who: Admin) -> ModelOut:
    """409 while it inspects or shadows a recipe; activating it later is possible all the same."""
    book, own = ModelBook(serving.database), serving.engines.own.hash

    def run() -> Listed:
        book.retire(who, model_hash, own=own, why=body.why)
        return book.one(model_hash)

    found = await asyncio.to_thread(run)
    return ModelOut(**shown(found.rows[0], found, own))
