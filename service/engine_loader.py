"""From a folder to a model that serves: verified, opened, warmed up."""

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from models.bundle import Bundle, BundleError, Manifest
from models.engine import Engine, open_engine
from service.batching import Batching
from service.db.repository import models
from service.db.session import Database
from service.errors import InspectionError, StartupError
from service.settings import Settings
from service.signatures import load_trusted

log = logging.getLogger(__name__)
MakeBatcher = Callable[[Engine], Batching]


@dataclass(eq=False)
class Model:
    """One bundle in service; without `engine` and `batcher` where no images are run."""

    manifest: Manifest
    hash: str
    engine: Engine | None = None
    batcher: Batching | None = None
    users: int = 0

    @property
    def columns(self) -> dict[str, str]:
        """What a row says of the model."""
        name, version = self.manifest.name, self.manifest.version
        return {"model_hash": self.hash, "model_name": name, "model_version": version}

    @property
    def created(self) -> float:
        """When it was trained, in seconds since 1970; NaN if its manifest says it in no way we know."""
        try:
            return datetime.fromisoformat(self.manifest.created_at).timestamp()
        except ValueError:
            return math.nan


def verified(path: Path, trusted_keys: Path | None = None) -> Bundle:
    """The bundle in a folder, signature and hashes checked; StartupError with the reason."""
    try:
        return load_trusted(path, trusted_keys)
    except (BundleError, OSError) as error:
        # Validation errors span lines; the person at the terminal gets one.
        raise StartupError(f"the bundle cannot be served: {_line(error)}") from None


def registered(database: Database, settings: Settings, model_hash: str) -> Bundle:
    """The bundle of a hash; InspectionError 404 if none is registered, StartupError if it is unusable."""
    with database.read() as session:
        row = models.get(session, model_hash)
    if row is None:
        detail = f"no model {model_hash[:64]!r} is known here; register its bundle first"
        raise InspectionError(404, "unknown-model", detail)
    bundle = verified(Path(row.path), settings.trusted_keys)
    if bundle.hash != model_hash:
        raise StartupError(f"{row.path} holds another bundle ({bundle.hash[:12]}) than was registered")
    return bundle


def own_bundle(settings: Settings) -> Bundle:
    """The bundle that the settings name; StartupError with what to do about it."""
    if settings.bundle is None:
        raise StartupError("no model: name a bundle with --bundle DIR or INLIER_BUNDLE")
    bundle = verified(settings.bundle, settings.trusted_keys)
    profile = settings.profile
    if profile is not None and profile not in bundle.manifest.profiles:
        known = ", ".join(sorted(bundle.manifest.profiles))
        raise StartupError(f"--profile {profile} is not in the bundle; it has {known}")
    return bundle


def opened(bundle: Bundle, settings: Settings) -> Engine:
    """The engine of a bundle; StartupError if it does not run here."""
    try:
        return open_engine(bundle, settings.runtime, settings.device, settings.threads)
    except Exception as error:  # each runtime has its own for a missing driver or a bad graph
        flags = f"--runtime {settings.runtime} --device {settings.device}"
        raise StartupError(f"the model cannot be opened with {flags}: {_line(error)}") from None


async def start(bundle: Bundle, settings: Settings, profile: str, make: MakeBatcher | None) -> Model:
    """A model that serves; without `make` only what is known of it. StartupError if it does not run here."""
    if make is None:
        return Model(bundle.manifest, bundle.hash)
    return await adopt(await asyncio.to_thread(opened, bundle, settings), settings, profile, make)


async def adopt(engine: Engine, settings: Settings, profile: str, make: MakeBatcher) -> Model:
    """Warm an engine up; StartupError if it fails."""
    batcher = make(engine)
    try:
        await batcher.warm_up(profile)
    except Exception as error:
        log.debug("warm-up failed", exc_info=True)
        await batcher.close()
        raise StartupError(
            f"the model does not run with --runtime {settings.runtime}: {_line(error)}"
        ) from None
    return Model(engine.manifest, engine.model_hash, engine, batcher)


def unusable(error: Exception) -> InspectionError:
    """Why a bundle was refused, as an answer."""
    return InspectionError(422, "unusable-bundle", _line(error))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
