"""The ASGI app: what is opened at start, in which order, and how it is closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from models.engine import Engine
from service.access.access import Access
from service.access.gate import Gate
from service.access.hosts import KnownHosts, allowed_hosts
from service.api import (
    artifacts,
    audit,
    inspections,
    keys,
    masks,
    models,
    operations,
    recipes,
    reviews,
    session,
    shadows,
    thresholds,
    training_audit,
    training_runs,
    users,
    webhooks,
)
from service.api.deps import Services
from service.drift.watch import DriftWatch
from service.errors import install_handlers
from service.gauges import Gauges
from service.metrics import Metrics
from service.middleware import BodyLimit, RequestContext
from service.outbox.dispatcher import Dispatcher
from service.outbox.senders import Senders
from service.recipes.book import RecipeBook
from service.review import (
    admin,
    audit_page,
    inspection,
    mask_pages,
    model_pages,
    overview,
    pages,
    preferences,
    queue,
    runs_page,
    shadow_page,
    shell,
    signin,
    threshold_pages,
    trial,
)
from service.runtime import open_runtime, open_store
from service.settings import Settings
from service.trials import Trials
from service.version import installed_version

_BEYOND_S = 1.0  # images have a limit of their own, which should be the one that is met
_ROUTERS = (
    *(inspections, artifacts, reviews, recipes, thresholds, masks),
    *(models, training_audit, training_runs, shadows),
    *(webhooks, keys, users, session, audit, operations),
    *(overview, queue, pages, inspection, threshold_pages, mask_pages),
    *(runs_page, model_pages, audit_page, shadow_page, trial, admin, signin, preferences),
)


def create_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """The service as an ASGI app; `engine` replaces the one of `settings.bundle`.

    The lifespan raises StartupError, with a message for the person at the terminal, when it cannot start.
    """
    metrics = Metrics(runs=bool(settings.workers_inside))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            ledger = await open_store(settings, stack)
            access = Access(ledger.database, settings)
            stack.push_async_callback(access.close)
            outbox = Dispatcher(ledger.database, settings, metrics, Senders(settings))
            stack.push_async_callback(outbox.close)
            runs = bool(settings.workers_inside)
            runtime = await open_runtime(settings, metrics, stack, ledger, engine, runs=runs)
            await asyncio.to_thread(RecipeBook(ledger.database).ensure_default)
            await asyncio.to_thread(access.greet, ledger.database)
            outbox.start()
            drift = DriftWatch(ledger.database, runtime.engines)
            services = Services(
                settings,
                runtime,
                metrics,
                outbox,
                shell.environment(),
                access,
                Trials(runtime),
                drift,
                ready=True,
            )
            app.state.services = services
            gauges = Gauges(ledger.database, runtime.engines, drift, metrics)
            stack.push_async_callback(gauges.close)
            gauges.start()
            metrics.ready.set(1)
            yield
            app.state.services.ready = False
            metrics.ready.set(0)

    app = FastAPI(
        title="Inlier",
        version=installed_version(),
        description="Industrial anomaly inspection: post an image of a part, get a verdict and see why.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # ours declares who may read it
        # A path is right or it is not; a redirect would drop the body of a POST.
        redirect_slashes=False,
    )
    for module in _ROUTERS:
        app.include_router(module.router)
    app.mount("/static", shell.Static(directory=shell.FOLDER / "static"), name="static")
    install_handlers(app)
    app.state.error_page = shell.error_page
    operations.describe_api(app)
    app.add_middleware(Gate)
    app.add_middleware(
        BodyLimit, max_bytes=settings.max_body_bytes, longest_s=settings.body_timeout_s + _BEYOND_S
    )
    app.add_middleware(KnownHosts, hosts=allowed_hosts(settings.allowed_hosts, settings.host))
    app.add_middleware(RequestContext, metrics=metrics)  # added last: outermost
    return app
