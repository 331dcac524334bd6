"""The ASGI app: what is opened at start, in which order, and how it is closed."""

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from models.bundle import BundleError, load_bundle
from models.engine import Engine, open_engine
from service.api import artifacts, inspections, operations, webhooks
from service.api.deps import Services
from service.blobs import BlobStore
from service.db.session import Database
from service.errors import StartupError, install_handlers
from service.inspect import Inspector
from service.ledger import Ledger
from service.metrics import Metrics
from service.middleware import BodyLimit, RequestContext
from service.outbox.dispatcher import Dispatcher
from service.outbox.senders import Senders
from service.review import pages
from service.settings import Settings

log = logging.getLogger(__name__)
_IO_THREADS = 32


def create_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """The service as an ASGI app; `engine` replaces the one of `settings.bundle`.

    The lifespan raises StartupError, with a message for the person at the terminal, when it cannot start.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            # Threads here mostly wait for the disk; reads must not queue up behind a few slow commits.
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_IO_THREADS, "io"))
            app.state.services = await _open(settings, engine, metrics, stack)
            metrics.ready.set(1)
            yield
            app.state.services.ready = False
            metrics.ready.set(0)

    app = FastAPI(
        title="Inlier",
        version=_version(),
        description="Industrial anomaly inspection: post an image of a part, get a verdict and see why.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # A path is right or it is not; a redirect would drop the body of a POST.
        redirect_slashes=False,
    )
    for module in (inspections, artifacts, webhooks, operations, pages):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=pages.FOLDER / "static"), name="static")
    install_handlers(app)
    operations.describe_api(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestContext, metrics=metrics)  # added last: outermost
    return app


async def _open(
    settings: Settings, engine: Engine | None, metrics: Metrics, stack: AsyncExitStack
) -> Services:
    path = ""
    if engine is None:
        engine = await asyncio.to_thread(_load, settings)
        path = str(settings.bundle)
    manifest = engine.manifest
    if settings.profile is not None and settings.profile not in manifest.profiles:
        known = ", ".join(sorted(manifest.profiles))
        raise StartupError(f"--profile {settings.profile} is not in the bundle; it has {known}")
    stack.callback(_lock(settings.data))
    database = Database(settings.url)
    stack.callback(database.close)
    await asyncio.to_thread(database.migrate)
    try:
        blobs = BlobStore(settings.data / "blobs")
        blobs.sweep()
    except OSError as error:
        reason = error.strerror
        raise StartupError(f"{settings.data / 'blobs'} cannot be used ({reason}); see --data") from None
    outbox = Dispatcher(database, settings, metrics, Senders(settings))
    stack.push_async_callback(outbox.close)
    ledger = Ledger(database, blobs, engine)
    await asyncio.to_thread(ledger.register_model, path)
    inspector = Inspector(engine, ledger, settings, metrics)
    stack.push_async_callback(inspector.close)
    try:
        await inspector.start()
    except Exception as error:
        log.debug("warm-up failed", exc_info=True)
        reason = " ".join(str(error).split())
        raise StartupError(f"the model does not run with --runtime {settings.runtime}: {reason}") from None
    metrics.model.labels(manifest.name, manifest.version, engine.model_hash, engine.device).set(1)
    log.info("ready: model %s %s (%s)", manifest.name, manifest.version, engine.model_hash[:12])
    outbox.start()
    return Services(
        settings, manifest, inspector, ledger, metrics, database, outbox, pages.environment(), ready=True
    )


def _load(settings: Settings) -> Engine:
    if settings.bundle is None:
        raise StartupError("no model: name a bundle with --bundle DIR or INLIER_BUNDLE")
    try:
        bundle = load_bundle(settings.bundle)
    except (BundleError, OSError) as error:
        # Validation errors span lines; the person at the terminal gets one.
        raise StartupError(f"the bundle cannot be served: {' '.join(str(error).split())}") from None
    try:
        return open_engine(bundle, settings.runtime, settings.device, settings.threads)
    except Exception as error:  # each runtime has its own exceptions for a missing driver or a bad graph
        reason = " ".join(str(error).split())
        flags = f"--runtime {settings.runtime} --device {settings.device}"
        raise StartupError(f"the model cannot be opened with {flags}: {reason}") from None


def _lock(folder: Path) -> Callable[[], None]:
    """Make the data folder ours until the answer is called: two services would both run what was left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StartupError(
            f"the data folder {folder} cannot be written ({error.strerror}); see --data"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StartupError(f"another inlier-service uses the data folder {folder}; see --data") from None
    return lambda: os.close(descriptor)


def _version() -> str:
    try:
        return version("inlier")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"
