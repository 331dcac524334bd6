"""The training-set audit: the most suspicious training images as a contact sheet, to be marked by people."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, Field

from service.access.principal import Operator
from service.api.deps import Serving
from service.api.models import ModelHash
from service.api.training_audit import MarkIn, post_mark, suspect
from service.review.forms import valid
from service.review.shell import page
from service.training_audit import TrainingAudit

router = APIRouter(include_in_schema=False)
_SHOWN = 200


class MarkForm(BaseModel):
    """The button that was pressed, where no script sends the mark: its value is the image's name."""

    defective: str | None = None
    fine: str | None = None
    none: str | None = None
    offset: int = Field(default=0, ge=0, le=10_000_000)


@router.get("/models/{model_hash}/audit")
async def audit(
    request: Request,
    model_hash: ModelHash,
    serving: Serving,
    who: Operator,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> HTMLResponse:
    """Two hundred training images, the most suspicious first."""
    sheet = await asyncio.to_thread(
        TrainingAudit(serving.database).sheet, model_hash, offset=offset, limit=_SHOWN
    )
    return page(
        request,
        "audit.html",
        sheet=sheet,
        items=[
            suspect(model_hash, each, sheet.marks.get(each.rank), sheet.pictures) for each in sheet.suspects
        ],
        training=(sheet.model.manifest or {}).get("training_data", {}),
        offset=offset,
        following=offset + _SHOWN if offset + _SHOWN < sheet.total else None,
        before=max(0, offset - _SHOWN) if offset else None,
    )


@router.post("/models/{model_hash}/audit/marks")
async def mark(
    model_hash: ModelHash, serving: Serving, who: Operator, form: Annotated[MarkForm, Form()]
) -> Response:
    """Mark one image, and go back to it."""
    chosen = next((name for name in ("defective", "fine") if getattr(form, name) is not None), None)
    image = form.defective or form.fine or form.none
    marked = await post_mark(model_hash, valid(MarkIn, {"image": image, "mark": chosen}), serving, who)
    return RedirectResponse(f"/models/{model_hash}/audit?offset={form.offset}#r{marked.rank}", 303)
