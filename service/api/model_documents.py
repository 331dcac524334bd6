"""The documents of the models calls."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from service.api.bodies import Body
from service.api.threshold_documents import Why
from service.metadata import Name


class RegisterIn(Body):
    path: str = Field(
        min_length=1,
        max_length=1024,
        description="of the bundle, below the service's folder of bundles",
    )


class WhyIn(Body):
    why: Why = Field(description="kept in the history")


class ActivateIn(WhyIn):
    recipe: Name | None = Field(default=None, description="null: every recipe that exists")


class RecipeWhyIn(WhyIn):
    recipe: Name


class ModelOut(BaseModel):
    hash: str
    name: str
    version: str
    state: Literal["candidate", "shadow", "active", "retired"]
    registered_at: datetime
    registered_by: str | None
    recipes: list[str] = Field(description="that name this model as the one that inspects them")
    shadowed_recipes: list[str]
    own: bool = Field(description="the service was started with it: it inspects what names no model")
    profiles: list[str]
    training_images: int | None
    estimated_contamination: float | None = Field(description="of its training images")
    contamination_interval: tuple[float, float] | None = Field(description="90 %")
    metrics: dict[str, Any]
    links: dict[str, str]


class ModelDetail(ModelOut):
    manifest: dict[str, Any] | None


class ModelsOut(BaseModel):
    items: list[ModelOut] = Field(description="the last registered first")


class EventOut(BaseModel):
    id: str
    action: str
    model_hash: str
    previous_hash: str | None
    recipe: str | None
    who: str
    why: str
    created_at: datetime


class EventsOut(BaseModel):
    items: list[EventOut] = Field(description="newest first")
    next: str | None = Field(description="`cursor` of the following page; null on the last one")


class ActivatedOut(BaseModel):
    model_hash: str
    recipes: list[str]
