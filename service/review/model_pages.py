"""The pages of models: what they are worth, where they work, and letting them. They work without scripts."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict

from service import bundles
from service.access.principal import Admin, Operator, Principal
from service.api import models as api
from service.api import shadows
from service.api.deps import Services, Serving
from service.api.model_documents import ActivateIn, ModelOut, RecipeWhyIn, RegisterIn, WhyIn
from service.errors import InspectionError
from service.metadata import Name
from service.model_life import ModelBook
from service.retraining import history
from service.review.forms import sent, valid
from service.review.model_views import model_view
from service.review.shell import page

router = APIRouter(include_in_schema=False)
Change = Literal["activate", "rollback", "shadow", "unshadow", "retire"]
_SHOWN = 100
_RUNS = 8  # of those that retrained, below the models


class ModelsQuery(BaseModel):
    """Which models the list shows."""

    model_config = ConfigDict(extra="ignore")

    name: Name | None = None
    state: Literal["candidate", "shadow", "active", "retired"] | None = None


class RegisterForm(BaseModel):
    path: str = ""


class ChangeForm(BaseModel):
    """What the buttons of a model's page send."""

    recipe: str = ""  # empty: all
    why: str = ""


@router.get("/models")
async def model_list(request: Request, serving: Serving, who: Operator) -> HTMLResponse:
    """All models, the last registered first, and a form for another."""
    return await _list(request, serving, sent(request, ModelsQuery))


@router.post("/models")
async def register(
    request: Request, serving: Serving, who: Admin, form: Annotated[RegisterForm, Form()]
) -> Response:
    """Register a bundle and show it; what is wrong with it is said beside the form."""

    def run() -> str:
        path = valid(RegisterIn, {"path": form.path.strip()}).path
        found = bundles.locate(serving.settings.bundles, path)
        return ModelBook(serving.database).register(who, found, serving.settings.trusted_keys)[0].hash

    try:
        model_hash = await asyncio.to_thread(run)
    except InspectionError as error:
        return await _list(request, serving, ModelsQuery(), error=error, path=form.path)
    return RedirectResponse(f"/models/{model_hash}?done=register", 303)


@router.get("/models/{model_hash}")
async def model(request: Request, model_hash: api.ModelHash, serving: Serving, who: Operator) -> HTMLResponse:
    """One model with its training, profiles, history, and the recipes it may inspect."""
    return await _model(request, serving, model_hash)


@router.post("/models/{model_hash}/{change}")
async def make_change(
    request: Request,
    model_hash: api.ModelHash,
    change: Change,
    serving: Serving,
    who: Admin,
    form: Annotated[ChangeForm, Form()],
) -> Response:
    """Activate, roll back, shadow, retire; what stands against it is said on the model's page."""
    try:
        await _make(change, model_hash, form, serving, who)
    except InspectionError as error:
        return await _model(request, serving, model_hash, error=error, why=form.why)
    recipe = f"&recipe={form.recipe}" if form.recipe else ""  # a valid name by now
    return RedirectResponse(f"/models/{model_hash}?done={change}{recipe}", 303)


async def _make(change: Change, model_hash: str, form: ChangeForm, serving: Services, who: Principal) -> None:
    given = {"recipe": form.recipe or None, "why": form.why.strip()}
    if change == "activate":
        await api.activate_model(model_hash, valid(ActivateIn, given), serving, who)
    elif change == "retire":
        await api.retire_model(model_hash, valid(WhyIn, {"why": given["why"]}), serving, who)
    else:
        body = valid(RecipeWhyIn, given)
        if change == "shadow":
            await shadows.shadow_model(model_hash, body, serving, who)
        elif change == "unshadow":
            await shadows.unshadow_model(model_hash, serving, who, body.recipe, body.why)
        else:
            await _roll_back(model_hash, body, serving, who)


async def _roll_back(model_hash: str, body: RecipeWhyIn, serving: Services, who: Principal) -> None:
    """From the model of the page, not from one that came into its place since the page was made."""
    now = serving.engines.serving(body.recipe)
    if now.hash != model_hash:
        title = f"{now.manifest.name} {now.manifest.version}"
        detail = f"recipe {body.recipe} is inspected by {title} by now; nothing was rolled back"
        raise InspectionError(409, "not-active", detail)
    await api.rollback_model(body, serving, who)


async def _list(
    request: Request,
    serving: Services,
    query: ModelsQuery,
    error: InspectionError | None = None,
    path: str = "",
) -> HTMLResponse:
    book, own = ModelBook(serving.database), serving.engines.own.hash
    found = await asyncio.to_thread(book.listed, name=query.name, state=query.state, limit=_SHOWN + 1)
    items = [ModelOut(**api.shown(row, found, own)) for row in found.rows[:_SHOWN]]
    runs = await asyncio.to_thread(history.history, serving.database, limit=_RUNS)
    return page(
        request,
        "models.html",
        200 if error is None else error.status,
        items=items,
        more=len(found.rows) > _SHOWN,
        runs=runs,
        query=query,
        filtered=query != ModelsQuery(),
        error=error,
        path=path,
        folder=serving.settings.bundles,
    )


async def _model(
    request: Request,
    serving: Services,
    model_hash: str,
    error: InspectionError | None = None,
    why: str = "",
) -> HTMLResponse:
    own = serving.engines.own.hash
    view = await asyncio.to_thread(model_view, serving.database, model_hash, own)
    done = request.query_params.get("done") if error is None else None
    return page(
        request,
        "model.html",
        200 if error is None else error.status,
        view=view,
        item=ModelOut(**api.shown(view.row, view.listed, own)),
        error=error,
        why=why,
        done=done,
        changed=view.use(request.query_params.get("recipe")),
    )
