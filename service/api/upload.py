"""What a `POST /v1/inspections` carries: a raw image, or a form with `image` and `metadata`."""

import asyncio
import re
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from service.api.bodies import utf8_only
from service.errors import InspectionError, validation_error
from service.metadata import Metadata, Traits

_ATTRIBUTE = "attr."
KEY: dict[str, Any] = {"minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"}
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?=$|[,;\s])", re.IGNORECASE)
_MAX_METADATA_BYTES = 64 * 1024

REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "The image itself, or a form with the image and its metadata as JSON.",
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "additionalProperties": False,
                "properties": {
                    "image": {"type": "string", "format": "binary", "description": "the image file"},
                    "metadata": {"$ref": "#/components/schemas/Metadata"},
                },
            },
            "encoding": {"metadata": {"contentType": "application/json"}},
        },
    },
}


def idempotency_key(value: str | None) -> str | None:
    """The header, checked: 1 to 255 visible ASCII characters."""
    if value is not None and not _KEY.fullmatch(value):
        raise InspectionError(
            422, "invalid-idempotency-key", "Idempotency-Key must be 1 to 255 visible characters"
        )
    return value


def preferred_wait_s(header: str | None) -> float | None:
    """N of `Prefer: wait=N` (RFC 7240); preferences that are not understood are ignored."""
    found = _WAIT.search(header or "")
    return float(found.group(1)) if found else None


def query_values(request: Request) -> dict[str, Any]:
    """Traits and `attr.KEY=VALUE` pairs of the query; an unknown name is an error, not silently lost."""
    values: dict[str, Any] = {}
    attributes: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        known = name in Traits.model_fields
        if not known and not name.startswith(_ATTRIBUTE):
            raise validation_error(
                [{"loc": ("query", name[:64]), "msg": "unknown parameter; use attr.NAME=VALUE"}]
            )
        where, key = (values, name) if known else (attributes, name.removeprefix(_ATTRIBUTE))
        if key in where:
            raise validation_error([{"loc": ("query", name[:64]), "msg": "given more than once"}])
        where[key] = value
    return {**values, "attributes": attributes} if attributes else values


async def read_in_time(request: Request, seconds: float) -> tuple[bytes, Metadata]:
    """As `read`; InspectionError 408 for a client that takes longer: it holds a place in the queue."""
    try:
        async with asyncio.timeout(seconds):
            return await read(request)
    except TimeoutError:
        detail = f"the image did not arrive within {seconds:g} s (INLIER_BODY_TIMEOUT_S); send it again"
        raise InspectionError(408, "upload-too-slow", detail) from None


async def read(request: Request) -> tuple[bytes, Metadata]:
    """Image bytes and metadata of a request; what the `metadata` part says wins over the query."""
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    values = query_values(request)
    if content_type == "multipart/form-data":
        utf8_only(request)
        async with request.form(max_files=2, max_fields=2, max_part_size=_MAX_METADATA_BYTES) as form:
            data, given = await _form_parts(form)
        said = _validated_json(given) if given is not None else None
        if said is not None:
            values |= said.model_dump(exclude_unset=True)
        return data, _validated(values)
    if content_type.startswith("image/") or content_type in ("", "application/octet-stream"):
        metadata = _validated(values)  # before the body is read: a wrong parameter costs no upload
        return await request.body(), metadata
    detail = (
        f"Content-Type {content_type!r} is not accepted; send the image itself as image/png, image/jpeg, "
        "image/bmp, image/tiff or image/webp, or a multipart/form-data form with `image` and `metadata`"
    )
    raise InspectionError(415, "unsupported-media-type", detail)


async def _form_parts(form: FormData) -> tuple[bytes, bytes | None]:
    unknown = sorted(set(form) - {"image", "metadata"})
    if unknown or any(len(form.getlist(name)) > 1 for name in form):
        detail = f"a form has one `image` and one `metadata` part; also found: {unknown or 'repeated parts'}"
        raise InspectionError(422, "invalid-form", detail[:500])
    image = form.get("image")
    if image is None:
        raise InspectionError(422, "invalid-form", "the form has no part named `image`")
    # A part without a file name arrives as text, which is not what the client's image was.
    if not isinstance(image, UploadFile):
        raise InspectionError(422, "invalid-form", "the part `image` needs a file name to be taken as a file")
    metadata = form.get("metadata")
    if isinstance(metadata, UploadFile):
        if (metadata.size or 0) > _MAX_METADATA_BYTES:
            raise InspectionError(
                413, "metadata-too-large", f"metadata is limited to {_MAX_METADATA_BYTES} bytes"
            )
        return await image.read(), await metadata.read()
    return await image.read(), None if metadata is None else metadata.encode()


def _validated_json(text: bytes) -> Metadata:
    try:
        return Metadata.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise validation_error(
            [{**item, "loc": ("metadata", *item["loc"])} for item in error.errors()]
        ) from None


def _validated(values: dict[str, Any]) -> Metadata:
    try:
        return Metadata.model_validate(values)
    except ValidationError as error:
        raise validation_error(
            [{**item, "loc": ("query", *item["loc"])} for item in error.errors()]
        ) from None
