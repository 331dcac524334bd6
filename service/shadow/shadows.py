"""Which shadows are wished and loaded in this process.

They follow the database on their own, beside the pool of engines: one that takes long to load, or cannot be
loaded, holds up nothing else. It is told in the log, by a metric, and in the model's history.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from models.engine import Engine
from service import engine_loader as loader
from service.db.repository import model_life, models
from service.db.session import Database
from service.engines import EnginePool
from service.metrics import Metrics
from service.settings import Settings
from service.shadow.engine import Shadow, aside
from service.shadow.traffic import Traffic

log = logging.getLogger(__name__)
_FOLLOW_S = 1.0
_LOAD_S = 300.0


class Shadows:
    """The shadows of one process by recipe."""

    def __init__(
        self, database: Database, engines: EnginePool, settings: Settings, metrics: Metrics, traffic: Traffic
    ) -> None:
        self._database, self._engines, self._settings = database, engines, settings
        self._metrics, self._traffic = metrics, traffic
        self._wished: Mapping[str, str] = {}  # recipe -> hash
        self._loaded: dict[str, Shadow] = {}  # by hash
        self._unusable: set[str] = set()
        self._follower: asyncio.Task[None] | None = None
        self._name = f"{socket.gethostname()[:96]}-{os.getpid()}"

    def start(self) -> None:
        self._follower = asyncio.create_task(self._follow(), name="shadows")

    async def close(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        for shadow in self._loaded.values():
            shadow.close()

    def wished(self, recipe: str) -> bool:
        """Whether a recipe has a shadow, loaded or not."""
        return recipe in self._wished

    def find(self, recipe: str) -> Shadow | None:
        """A recipe's shadow, if it is loaded."""
        return self._loaded.get(self._wished.get(recipe, ""))

    async def refresh(self) -> None:
        """Drop what is wished no longer, and load what is."""
        wished = self._engines.shadows()
        self._drop(set(wished.values()))
        for recipe in self._wished.keys() - wished.keys():
            with suppress(KeyError):
                self._metrics.shadow_loaded.remove(self._metrics.recipe(recipe))
        self._wished = wished
        for recipe, model_hash in wished.items():
            await self._load(recipe, model_hash)
            self._metrics.shadow_loaded.labels(self._metrics.recipe(recipe)).set(model_hash in self._loaded)

    async def _follow(self) -> None:
        while True:
            try:
                await self.refresh()
            except SQLAlchemyError as error:
                log.warning("shadows cannot be looked at for now: %s", error)
            except Exception:
                log.exception("a change of shadows could not be followed")
            await asyncio.sleep(_FOLLOW_S)

    def _drop(self, kept: set[str]) -> None:
        self._unusable &= kept  # who is wished anew is tried anew
        for model_hash in self._loaded.keys() - kept:
            self._loaded.pop(model_hash).close()
            log.info("dropped shadow %s", model_hash[:12])

    async def _load(self, recipe: str, model_hash: str) -> None:
        if model_hash in self._loaded or model_hash in self._unusable:
            return
        try:
            async with asyncio.timeout(_LOAD_S):
                shadow = Shadow(await aside(lambda: self._open(model_hash)), self._traffic)
                await shadow.rehearse(self._engines.default_profile(recipe, shadow.manifest))
        except SQLAlchemyError:
            raise
        except TimeoutError:
            await self._refuse(recipe, model_hash, f"it was not loaded within {_LOAD_S:.0f} s")
        except Exception as error:
            await self._refuse(recipe, model_hash, " ".join(str(error).split()))
        else:
            self._loaded[model_hash] = shadow
            log.info("recipe %s has the shadow %s", recipe, model_hash[:12])

    def _open(self, model_hash: str) -> Engine:
        bundle = loader.registered(self._database, self._settings, model_hash)
        return loader.opened(bundle, self._settings)

    async def _refuse(self, recipe: str, model_hash: str, why: str) -> None:
        log.error("shadow %s of recipe %s is unusable: %s", model_hash[:12], recipe, why)
        self._unusable.add(model_hash)

        def note() -> None:
            with self._database.write() as session:
                models.note(session, recipe, model_hash, None, model_life.UNUSABLE, self._name, why[:2000])

        await asyncio.to_thread(note)
