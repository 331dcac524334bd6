"""The pictures of an inspection: original, heatmap, reconstruction, difference."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from models.decode import decode
from service import render
from service.access.principal import Camera
from service.api.deps import Services, Serving
from service.blobs import BlobMissing
from service.db.tables import InspectionRow
from service.errors import InspectionError, problem_docs

router = APIRouter(prefix="/v1/inspections/{identifier}", tags=["pictures"], default_response_class=Response)
# What belongs to an inspection never changes once it exists.
MapFormat = Literal["colour", "overlay", "raw", "packed"]
_FORMATS = (
    "`overlay`: coloured, the clearer the lower; `raw`: 16-bit gray, map value = count x scale; "
    "`packed`: the same count as 256 x red + green, for browsers"
)
_CACHE = "private, max-age=31536000, immutable"


def _docs(*media_types: str) -> dict[int | str, dict[str, Any]]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        200: {"description": "The picture", "content": dict.fromkeys(media_types, binary)},
        **problem_docs(404, 422, 503),
    }


def _picture(data: bytes, media_type: str) -> Response:
    return Response(data, media_type=media_type, headers={"Cache-Control": _CACHE})


def _blob(serving: Services, name: str | None, what: str) -> bytes:
    if name is None:
        raise InspectionError(404, "no-picture", f"this inspection has no {what}; only finished ones have")
    try:
        return serving.ledger.blobs.get(name)
    except BlobMissing:
        raise InspectionError(404, "picture-removed", f"the {what} is no longer stored") from None


def _image(serving: Services, identifier: str, size_px: int | None) -> Response:
    row = serving.ledger.get(identifier)
    data = _blob(serving, row.image_sha256, "image")
    if size_px is None:
        return _picture(data, row.image_media_type)
    return _picture(render.preview(_decoded(serving, data), size_px), render.JPEG)


def _decoded(serving: Services, data: bytes) -> Any:
    return decode(data, max_pixels=serving.settings.max_pixels)


def _heatmap(serving: Services, identifier: str, form: MapFormat) -> Response:
    row = serving.ledger.get(identifier)
    png = _blob(serving, row.heatmap_sha256, "heatmap")
    if form == "packed":
        return _picture(render.packed(png), render.PNG)
    if form == "raw" or row.heatmap_scale is None or row.heatmap_max is None:
        return _picture(png, render.PNG)
    draw = render.overlay if form == "overlay" else render.colour_map
    return _picture(draw(render.decode_map(png, row.heatmap_scale), row.heatmap_max), render.PNG)


def _reconstruction(serving: Services, identifier: str) -> tuple[InspectionRow, bytes]:
    row = serving.ledger.get(identifier)
    return row, _blob(serving, row.reconstruction_sha256, "reconstruction")


def _difference(serving: Services, identifier: str) -> Response:
    row, healthy = _reconstruction(serving, identifier)
    image = _decoded(serving, _blob(serving, row.image_sha256, "image"))
    return _picture(render.difference(image, healthy), render.PNG)


@router.get(
    "/image",
    summary="The image as it was sent",
    responses=_docs("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp"),
)
async def get_image(
    identifier: str,
    serving: Serving,
    who: Camera,
    size: Annotated[
        int | None, Query(ge=16, le=16384, description="longest side of a JPEG preview, px")
    ] = None,
) -> Response:
    """The original bytes; with `size` an upright preview that every browser can show."""
    return await asyncio.to_thread(_image, serving, identifier, size)


@router.get("/heatmap", summary="The anomaly map", responses=_docs("image/png"))
async def get_heatmap(
    identifier: str,
    serving: Serving,
    who: Camera,
    format: Annotated[MapFormat, Query(description=_FORMATS)] = "colour",
) -> Response:
    """On one fixed colour scale per model and profile, so pictures compare; higher values saturate."""
    return await asyncio.to_thread(_heatmap, serving, identifier, format)


@router.get("/reconstruction", summary="What a good part would look like", responses=_docs("image/png"))
async def get_reconstruction(identifier: str, serving: Serving, who: Camera) -> Response:
    """The network's reconstruction, at its resolution."""
    _, png = await asyncio.to_thread(_reconstruction, serving, identifier)
    return _picture(png, render.PNG)


@router.get("/difference", summary="Image minus reconstruction", responses=_docs("image/png"))
async def get_difference(identifier: str, serving: Serving, who: Camera) -> Response:
    """Absolute difference, mean over channels, four times amplified, at the network's resolution."""
    return await asyncio.to_thread(_difference, serving, identifier)
