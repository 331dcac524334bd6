"""The ignore mask of a recipe: upload as PNG or polygons, look at it, go back to none."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, ValidationError

from models.decode import DecodeError, decode
from models.masks import Mask, MaskError, from_pixels, from_polygons
from service.access.principal import Admin, Operator
from service.api.bodies import Body
from service.api.deps import RecipeName, Serving
from service.api.threshold_documents import Version, Why
from service.api.thresholds import Where, manifest_of
from service.db.tables import MaskRow
from service.errors import InspectionError, problem_docs, validation_error
from service.metadata import WHOLE
from service.recipes.masking import MAX_PIXELS, MaskPreview, Masks

router = APIRouter(prefix="/v1/recipes/{recipe}/mask", tags=["masks"])
Side = Annotated[int, Field(ge=1, le=16_384), WHOLE]
Coordinate = Annotated[float, Field(ge=0, le=16_384, allow_inf_nan=False)]
_PNG = "image/png"


class PolygonsIn(Body):
    """What is not inspected, as polygons on an image of the recipe."""

    width: Side = Field(description="of the image that the corners are measured on, pixels")
    height: Side
    polygons: list[Annotated[list[tuple[Coordinate, Coordinate]], Field(min_length=3, max_length=1000)]] = (
        Field(min_length=1, max_length=200, description="corners (x, y) in pixels, from the top left")
    )


class MaskOut(BaseModel):
    """A version of a mask."""

    id: str
    version: int
    width: int
    height: int
    share: float = Field(description="of the image that is not inspected")
    sha256: str = Field(description="of the PNG")
    who: str
    why: str
    created_at: datetime


class MaskFlipOut(BaseModel):
    id: str
    score: float
    score_after: float = Field(description="estimated")
    before: str = Field(description="verdict under the limits and the mask in force")
    after: str = Field(description="verdict under the previewed mask, estimated")
    review_state: str


class MaskFlipsOut(BaseModel):
    total: int
    kinds: dict[str, int] = Field(description="how many flip between what: `REVIEW->PASS`")
    items: list[MaskFlipOut] = Field(description="newest first")


class MaskPreviewOut(BaseModel):
    based_on: int = Field(description="version in force that is compared with; 0: none")
    share: float = Field(description="of the image that would not be inspected")
    inspections: int = Field(description="stored ones whose maps were looked at, under the mask in force")
    flips: MaskFlipsOut
    uncovers: bool = Field(
        description="the mask in force hides something that would be inspected again: stored maps say "
        "nothing of it"
    )


class MasksOut(BaseModel):
    items: list[MaskOut] = Field(description="newest first; the first is in force")


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            _PNG: {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": PolygonsIn.model_json_schema()},
        },
    }
}


def _shown(row: MaskRow) -> MaskOut:
    names = ("id", "version", "share", "sha256", "who", "why", "created_at")
    own = {name: getattr(row, name) for name in names}
    return MaskOut(**own, width=row.width_px, height=row.height_px)


@router.get(
    "",
    summary="The mask as PNG",
    response_class=Response,
    responses={
        200: {
            "description": "White is not inspected",
            "content": {_PNG: {"schema": {"type": "string", "format": "binary"}}},
        },
        **problem_docs(404, 422, 503),
    },
)
async def get_mask(
    recipe: RecipeName,
    serving: Serving,
    who: Operator,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="[default: in force]")] = None,
) -> Response:
    """White is not inspected; all black after a removal, 404 if there never was one."""
    masks = Masks(serving.database, serving.ledger.blobs)

    def read() -> tuple[MaskRow, bytes]:
        row = masks.newest(recipe) if version is None else masks.version(recipe, version)
        return row, masks.png(row)

    row, png = await asyncio.to_thread(read)
    return Response(png, media_type=_PNG, headers={"ETag": f'"{row.version}"', "Cache-Control": "no-cache"})


@router.get("/versions", summary="All versions of the mask", responses=problem_docs(404, 422, 503))
async def get_mask_versions(
    recipe: RecipeName, serving: Serving, who: Operator, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> MasksOut:
    """With who set each and why."""
    masks = Masks(serving.database, serving.ledger.blobs)
    return MasksOut(items=[_shown(row) for row in await asyncio.to_thread(masks.history, recipe, limit)])


@router.put(
    "",
    status_code=201,
    summary="Set the mask",
    responses=problem_docs(404, 409, 413, 415, 422, 503, 507),
    openapi_extra=_BODY,
)
async def set_mask(
    recipe: RecipeName,
    request: Request,
    serving: Serving,
    who: Admin,
    why: Annotated[Why, Query(description="kept with the version")],
    based_on: Annotated[Version | None, Query(description="version this replaces; 0: none")] = None,
) -> MaskOut:
    """A PNG (white is not inspected; of the images' aspect, any size), or polygons on such an image.

    For what is accepted from now on; what was inspected keeps the mask it was inspected with.
    """
    read = await _sent(request)
    size = serving.engines.serving(recipe).manifest.map_size
    masks = Masks(serving.database, serving.ledger.blobs)

    def store() -> MaskRow:
        return masks.set(who, recipe, read(), map_size=size, why=why, based_on=based_on)

    return _shown(await asyncio.to_thread(store))


@router.post(
    "/preview",
    summary="What another mask would change",
    responses=problem_docs(404, 413, 415, 422, 503),
    openapi_extra=_BODY,
)
async def preview_mask(
    request: Request,
    serving: Serving,
    who: Operator,
    where: Where,
    limit: Annotated[int, Query(ge=1, le=500, description="newest inspections looked at")] = 100,
) -> MaskPreviewOut:
    """Verdicts of stored inspections, estimated from their stored maps; nothing is changed.

    The maps of inspections under the same mask, model and profile; the limits in force decide.
    """
    read = await _sent(request)
    manifest = await asyncio.to_thread(manifest_of, serving, where)
    masks = Masks(serving.database, serving.ledger.blobs)
    calibration = manifest.calibration[where.profile].score
    top_fraction = manifest.profiles[where.profile].map.top_fraction

    def run() -> MaskPreview:
        return masks.preview(
            where, calibration, top_fraction, read(), map_size=manifest.map_size, limit=limit
        )

    found = await asyncio.to_thread(run)
    flips = [effect for effect in found.effects if effect.before != effect.after]
    kinds = Counter(f"{effect.before}->{effect.after}" for effect in flips)
    return MaskPreviewOut(
        based_on=found.based_on,
        share=found.share,
        inspections=len(found.effects),
        flips=MaskFlipsOut(
            total=len(flips), kinds=kinds, items=[MaskFlipOut(**vars(effect)) for effect in flips]
        ),
        uncovers=found.uncovers,
    )


@router.delete("", summary="Inspect all of a part again", responses=problem_docs(404, 409, 422, 503))
async def clear_mask(
    recipe: RecipeName,
    serving: Serving,
    who: Admin,
    why: Annotated[Why, Query()],
    based_on: Annotated[Version | None, Query()] = None,
) -> MaskOut:
    """As a new, empty version."""
    masks = Masks(serving.database, serving.ledger.blobs)
    return _shown(await asyncio.to_thread(masks.clear, who, recipe, why=why, based_on=based_on))


async def _sent(request: Request) -> Callable[[], Mask]:
    """What a request holds, to be read in a thread; 415 for anything but a PNG or polygons."""
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type not in (_PNG, "application/json"):
        raise InspectionError(
            415, "unsupported-media-type", "send the mask as image/png, or polygons as application/json"
        )
    data = await request.body()
    return partial(_pixels if content_type == _PNG else _polygons, data)


def _pixels(data: bytes) -> Mask:
    try:
        image = decode(data, max_pixels=MAX_PIXELS)
    except DecodeError as error:
        raise InspectionError(422, "invalid-mask", f"the mask cannot be read: {error}") from None
    if image.media_type != _PNG:
        raise InspectionError(422, "invalid-mask", f"the mask is {image.media_type}, not a PNG")
    return from_pixels(image.pixels)


def _polygons(data: bytes) -> Mask:
    try:
        given = PolygonsIn.model_validate_json(data)
    except ValidationError as error:
        raise validation_error([{**item, "loc": ("body", *item["loc"])} for item in error.errors()]) from None
    if given.width * given.height > MAX_PIXELS:
        raise InspectionError(422, "invalid-mask", f"an image of a mask has at most {MAX_PIXELS} pixels")
    try:
        return from_polygons(given.polygons, given.height, given.width)
    except MaskError as error:
        raise InspectionError(422, "invalid-mask", str(error)) from None
