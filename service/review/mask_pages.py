"""The masks page: what is not inspected, painted over an image of the recipe."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from service.access.principal import Operator
from service.api.bodies import Uuid
from service.api.deps import Services, Serving
from service.api.schemas import document
from service.db.repository import inspections, masks, recipes
from service.db.tables import InspectionRow, MaskRow
from service.metadata import Name
from service.review import tuning
from service.review.forms import sent
from service.review.shell import page

router = APIRouter(include_in_schema=False)
_VERSIONS = 12
_IMAGES = 12


class MaskQuery(BaseModel):
    """Whose mask, and which image it is painted on."""

    recipe: Name | None = None
    inspection: Uuid | None = None


@dataclass(frozen=True)
class Easel:
    """A recipe's mask, and images to paint on."""

    recipes: Sequence[str]
    recipe: str
    image: InspectionRow | None
    images: Sequence[InspectionRow]  # newest first
    history: Sequence[MaskRow]  # newest first

    @property
    def present(self) -> MaskRow | None:
        """The mask in force, if anything is left out."""
        return self.history[0] if self.history and self.history[0].share else None


def open_easel(serving: Services, query: MaskQuery) -> Easel:
    """InspectionError 404 for an unknown inspection or recipe."""
    known = tuning.recipe_names(serving.database)
    image = None if query.inspection is None else serving.ledger.get(str(query.inspection))
    recipe = query.recipe or (image.recipe if image else tuning.latest_recipe(serving.database, known))
    with serving.database.read() as session:
        recipes.need(session, recipe)
        images = inspections.newest_of(session, recipe, _IMAGES)
        history = masks.history(session, recipe, _VERSIONS)
    if image is None or image.recipe != recipe:
        image = images[0] if images else None
    return Easel(known, recipe, image, images, history)


@router.get("/masks")
async def mask_page(request: Request, serving: Serving, who: Operator) -> HTMLResponse:
    """The mask in force over an image; with scripts it is painted."""
    easel = await asyncio.to_thread(open_easel, serving, sent(request, MaskQuery))
    return page(
        request,
        "masks.html",
        easel=easel,
        image=None if easel.image is None else document(easel.image),
        images=[document(row) for row in easel.images],
    )
