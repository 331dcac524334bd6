"""What the routers work with."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from jinja2 import Environment

from models.bundle import Manifest
from service.db.session import Database
from service.inspect import Inspector
from service.ledger import Ledger
from service.metrics import Metrics
from service.outbox.dispatcher import Dispatcher
from service.settings import Settings


@dataclass
class Services:
    """Everything one running app owns; made by the lifespan in `service.app`."""

    settings: Settings
    manifest: Manifest
    inspector: Inspector
    ledger: Ledger
    metrics: Metrics
    database: Database
    outbox: Dispatcher
    pages: Environment
    ready: bool = False


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


Serving = Annotated[Services, Depends(services)]
