"""What the routers work with."""

from dataclasses import dataclass, field
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Query, Request
from jinja2 import Environment

from models.bundle import Manifest
from service.accept import Acceptor
from service.access.access import Access
from service.db.session import Database
from service.drift.watch import DriftWatch
from service.ending import Ending
from service.engines import EnginePool
from service.ledger import Ledger
from service.metrics import Metrics
from service.outbox.dispatcher import Dispatcher
from service.recipes.memory import ScoreMemory
from service.review.lately import Watched
from service.runtime import Runtime
from service.settings import Settings
from service.trials import Trials


@dataclass
class Services:
    """Everything one running app owns; made by the lifespan in `service.app`."""

    settings: Settings
    runtime: Runtime
    metrics: Metrics
    outbox: Dispatcher
    pages: Environment
    access: Access
    trials: Trials
    drift: DriftWatch
    ready: bool = False
    stopping: bool = False  # set before the server waits for open requests
    scores: ScoreMemory = field(default_factory=ScoreMemory)
    watched: Watched = field(default_factory=Watched)

    @property
    def database(self) -> Database:
        return self.runtime.ledger.database

    @property
    def ledger(self) -> Ledger:
        return self.runtime.ledger

    @property
    def engines(self) -> EnginePool:
        return self.runtime.engines

    @property
    def acceptor(self) -> Acceptor:
        return self.runtime.acceptor

    @property
    def ending(self) -> Ending:
        return self.runtime.ending

    @property
    def manifest(self) -> Manifest:
        """Of the model that inspects the recipe `default`."""
        return self.runtime.engines.serving("default").manifest


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


async def _serving(request: Request) -> Services:
    return services(request)  # FastAPI would call a plain function in a thread


Serving = Annotated[Services, Depends(_serving)]
Cursor = Annotated[UUID | None, Query(description="from `next`: id of the last item of the page before")]
RecipeName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="recipe")]


def id_text(cursor: UUID | None) -> str | None:
    """A cursor as the ids are stored."""
    return None if cursor is None else str(cursor)
