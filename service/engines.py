"""The engine pool: which bundle inspects which recipe, loaded, warmed up and swapped while requests run.

What a recipe is inspected with stands in the database; every process follows it within seconds. A swap is
a new entry here: jobs that began with the old engine end with it, and it is dropped when the last has.
A bundle that cannot be loaded leaves the one before it serving.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from models.bundle import Bundle, Manifest
from models.engine import Engine
from service import engine_loader as loader
from service import model_life
from service.access.principal import Principal
from service.db.repository import models, thresholds
from service.db.repository.models import Wish
from service.db.session import Database
from service.engine_loader import MakeBatcher, Model
from service.errors import InspectionError, StartupError
from service.metrics import Metrics
from service.settings import Settings

log = logging.getLogger(__name__)
_FOLLOW_S = 1.0
_CLOSE_S = 5.0
_NO_WISH = Wish()


class EnginePool:
    """The bundles of one process by hash, and the recipes they inspect; without `make`, nothing is run."""

    def __init__(
        self, database: Database, settings: Settings, metrics: Metrics, make: MakeBatcher | None
    ) -> None:
        self._database, self._settings, self._metrics, self._make = database, settings, metrics, make
        self._models: dict[str, Model] = {}
        self._plan: Mapping[str, Wish] = {}
        self._serving: dict[str, str] = {}  # recipe -> hash, where it is not the service's own
        self._shown: set[tuple[str, str, str, str]] = set()  # labels of `inlier_recipe_model_info`
        self._unusable: dict[str, str] = {}  # hash -> why it could not be loaded
        self._lock = asyncio.Lock()
        self._follower: asyncio.Task[None] | None = None
        self.own: Model  # of recipes that name no bundle; set by `open`

    async def open(self, engine: Engine | None = None) -> None:
        """Load what serves, by default `settings.bundle`; StartupError with what to do about it."""
        path = ""
        if engine is not None and self._make is not None:
            profile = self.default_profile("", engine.manifest)
            self.own = await loader.adopt(engine, self._settings, profile, self._make)
        else:
            bundle = await asyncio.to_thread(loader.own_bundle, self._settings)
            path = str(bundle.path)
            self.own = await self._start(bundle)
        self._add(self.own)
        await asyncio.to_thread(self._register_own, path)
        await self.refresh()
        for recipe, wish in self._plan.items():
            if wish.model_hash in self._unusable:
                reason = self._unusable[wish.model_hash]
                raise StartupError(
                    f"the active model of recipe {recipe} is unusable: {reason}; put its bundle back"
                )
        self._follower = asyncio.create_task(self._follow(), name="engines")

    async def close(self, grace_s: float = 0.0) -> None:
        """Stop following, and end all engines between two network calls once `grace_s` is over."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        batchers = [model.batcher for model in self._models.values() if model.batcher is not None]
        await asyncio.gather(*(batcher.close(grace_s) for batcher in batchers))

    @property
    def healthy(self) -> bool:
        """Whether every engine takes images."""
        return all(model.batcher is None or model.batcher.healthy for model in self._models.values())

    def serving(self, recipe: str) -> Model:
        """The model that inspects a recipe now."""
        return self._models.get(self._serving.get(recipe, self.own.hash), self.own)

    @contextmanager
    def use(self, recipe: str) -> Iterator[Model]:
        """The model of a recipe, which is not dropped meanwhile."""
        model = self.serving(recipe)
        model.users += 1
        try:
            yield model
        finally:
            model.users -= 1

    def wish(self, recipe: str) -> Wish:
        """What the recipe says, as of the last look at the database."""
        return self._plan.get(recipe, _NO_WISH)

    def shadows(self) -> Mapping[str, str]:
        """The hashes of the recipes' shadows, by recipe."""
        return {
            recipe: wish.shadow_hash
            for recipe, wish in self._plan.items()
            if wish.shadow_hash is not None and wish.shadow_hash != self.serving(recipe).hash
        }

    def profile(self, recipe: str, asked: str | None) -> str:
        """The profile to run; InspectionError 422 for one that the recipe's bundle does not have."""
        manifest = self.serving(recipe).manifest
        if asked is None:
            return self.default_profile(recipe, manifest)
        known = sorted(manifest.profiles)
        if asked not in known:
            detail = f"profile {asked!r} is not in this model's bundle; known: {', '.join(known)}"
            raise InspectionError(422, "unknown-profile", detail, extra={"profiles": known})
        return asked

    def default_profile(self, recipe: str, manifest: Manifest) -> str:
        """The recipe's, the settings', or the bundle's for the device: the first that the bundle has."""
        for name in (self.wish(recipe).profile, self._settings.profile):
            if name is not None and name in manifest.profiles:
                return name
        return manifest.default_profile[self._settings.device]

    # --- changes, each with its entry in the audit log ---

    async def activate(self, recipe: str, model_hash: str, who: Principal, why: str) -> Model:
        """Let a registered bundle inspect a recipe from now on; on any error the old one stays.

        InspectionError 404 for an unknown bundle, 422 for one that is damaged or does not run here.
        """
        async with self._lock:
            return await self._switch(recipe, model_hash, who, why, models.ACTIVATED)

    async def rollback(self, recipe: str, who: Principal, why: str) -> Model:
        """Activate what inspected the recipe before; InspectionError 409 if there was nothing."""
        async with self._lock:
            await self._follow_plan()
            earlier = await asyncio.to_thread(self._before, recipe, self.serving(recipe).hash)
            if earlier is None:
                detail = f"no other model inspected recipe {recipe} before; there is nothing to go back to"
                raise InspectionError(409, "nothing-to-roll-back", detail)
            return await self._switch(recipe, earlier, who, why, models.ROLLED_BACK)

    async def _switch(self, recipe: str, model_hash: str, who: Principal, why: str, action: str) -> Model:
        model = await self._loaded(model_hash, again=True)
        previous = self.serving(recipe).hash

        def store() -> None:
            with self._database.write() as session:
                model_life.activate(
                    session, who, recipe, model_hash, previous=previous, why=why, action=action
                )
                models.set_state(session, self.own.hash, "active")  # it inspects what names no other

        await asyncio.to_thread(store)
        await self._follow_plan()
        log.info("recipe %s is inspected by model %s: %s", recipe, model_hash[:12], why)
        return model

    def _before(self, recipe: str, model_hash: str) -> str | None:
        with self._database.read() as session:
            return models.before(session, recipe, model_hash)

    # --- following the database ---

    async def refresh(self) -> None:
        """Bring this process to what the database says."""
        async with self._lock:
            await self._follow_plan()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_FOLLOW_S)
            try:
                await self.refresh()
            except SQLAlchemyError as error:
                log.warning("which models are active cannot be read for now: %s", error)
            except Exception:
                log.exception("a change of models could not be followed")

    async def _follow_plan(self) -> None:
        plan = await asyncio.to_thread(self._read_plan)
        serving: dict[str, str] = {}
        for recipe, wish in plan.items():
            if wish.model_hash is None:
                continue
            with suppress(InspectionError):  # told in the log; what served before goes on
                await self._loaded(wish.model_hash)
            known = wish.model_hash if wish.model_hash in self._models else self._serving.get(recipe)
            if known is not None:
                serving[recipe] = known
        self._plan, self._serving = plan, serving
        self._show_serving()
        await self._drop_unused()

    def _show_serving(self) -> None:
        """Which model inspects which recipe, for the dashboards."""
        names = {"default", *self._plan}
        shown = {(self._metrics.recipe(name), *_labels(self.serving(name))[:3]) for name in names}
        for labels in self._shown - shown:
            self._metrics.recipe_model.remove(*labels)
        for labels in shown:
            self._metrics.recipe_model.labels(*labels).set(1)
        self._shown = shown

    def _read_plan(self) -> Mapping[str, Wish]:
        with self._database.read() as session:
            return models.wishes(session)

    async def _drop_unused(self) -> None:
        kept = {self.own.hash, *self._serving.values()}
        for model in [model for model in self._models.values() if model.hash not in kept]:
            if model.users:
                continue  # at a later look
            del self._models[model.hash]
            with suppress(KeyError):
                self._metrics.model.remove(*_labels(model))
                self._metrics.model_created.remove(*_labels(model)[:3])
            if model.batcher is not None:
                await model.batcher.close(_CLOSE_S)
            log.info("dropped model %s", model.hash[:12])

    async def _loaded(self, model_hash: str, *, again: bool = False) -> Model:
        """The model of a hash; one that could not be loaded is not tried a second time unless `again`."""
        if (found := self._models.get(model_hash)) is not None:
            return found
        if model_hash in self._unusable and not again:
            raise InspectionError(422, "unusable-bundle", self._unusable[model_hash])
        try:
            model = await self._start(
                await asyncio.to_thread(loader.registered, self._database, self._settings, model_hash)
            )
        except StartupError as error:
            self._unusable[model_hash] = str(error)
            log.error("model %s is unusable: %s", model_hash[:12], error)
            raise loader.unusable(error) from None
        self._unusable.pop(model_hash, None)
        self._add(model)
        return model

    def _add(self, model: Model) -> None:
        self._models[model.hash] = model
        self._metrics.model.labels(*_labels(model)).set(1)
        self._metrics.model_created.labels(*_labels(model)[:3]).set(model.created)

    async def _start(self, bundle: Bundle) -> Model:
        profile = self.default_profile("", bundle.manifest)
        return await loader.start(bundle, self._settings, profile, self._make)

    def _register_own(self, path: str) -> None:
        with self._database.write() as session:
            models.register(session, self.own.manifest, self.own.hash, path)
            models.set_state(session, self.own.hash, "active")
            suggest(session, "default", self.own)


def suggest(session: Session, recipe: str, model: Model) -> None:
    """The bundle's suggested limits as the first version of a recipe's, for every profile."""
    for profile, calibration in model.manifest.calibration.items():
        thresholds.ensure(session, recipe, model.hash, profile, calibration.suggested)


def _labels(model: Model) -> tuple[str, str, str, str]:
    device = model.engine.device if model.engine is not None else "none"
    return model.manifest.name, model.manifest.version, model.hash, device
