"""An image tried out: judged as an inspection would judge it, with a film of its reconstruction.

    bytes -> decode -> preprocess -> batcher, as backfill and watched -> verdict and pictures -> nowhere

Nothing of it is stored: no row, no blob, no message, no count of the line.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.decode import Image
from models.film import Filming, Frame
from models.preprocess import shrink, to_pixels
from models.samplers import image_seed
from service import render
from service.accept import Read
from service.access.principal import Principal
from service.batching import Expired, Finished, Job
from service.conclude import failure
from service.engine_loader import Model
from service.errors import InspectionError
from service.ids import new_id
from service.metadata import Metadata
from service.prepare import Prepared
from service.recipes.book import RecipeBook
from service.recipes.limits import InForce, Limits, Place
from service.recipes.masking import Masks
from service.runner import prepare
from service.runtime import Runtime
from service.verdict import Judgement, judge

AT_ONCE = 2
_LONGEST_S = 300.0
_PREVIEW_PX = 1024


@dataclass(frozen=True)
class Begun:
    """The image is decoded and on its way to the engine."""

    kind: str  # of the profile
    steps: int  # evaluations of the network


@dataclass(frozen=True)
class Shot:
    """A frame of the film as PNG."""

    phase: str
    t: float
    number: int
    noisy: bytes
    clean: bytes | None


@dataclass(frozen=True)
class Judged:
    """What an inspection of the same image would say."""

    recipe: str
    profile: str
    model: Model
    size: tuple[int, int]  # height, width of the image
    raw: float
    judgement: Judgement
    limits: InForce
    mask_id: str | None
    top: float  # of the heatmap's colour scale
    outlines: str
    latency_ms: dict[str, float]
    pictures: dict[str, bytes]  # image (JPEG), reconstruction, difference, overlay (PNG)


Event = Begun | Shot | Judged


@dataclass(frozen=True)
class _Pixels:
    frame: Frame
    noisy: NDArray[np.uint8]
    clean: NDArray[np.uint8] | None

    def shot(self) -> Shot:
        clean = None if self.clean is None else render.encode_png(self.clean)
        return Shot(self.frame.phase, self.frame.t, self.frame.number, render.encode_png(self.noisy), clean)


class Trials:
    """Trials of one process, two at once; they share the engine with the cameras and come after them."""

    def __init__(self, runtime: Runtime) -> None:
        ledger = runtime.ledger
        self._runtime = runtime
        self._book, self._limits = RecipeBook(ledger.database), Limits(ledger.database)
        self._masks = Masks(ledger.database, ledger.blobs)
        self._running = 0

    @property
    def possible(self) -> bool:
        """Whether there is an engine in this process."""
        return self._runtime.worker is not None

    async def run(self, read: Read, who: Principal) -> AsyncIterator[Event]:
        """Try an image; `read` receives what was sent. The first event comes when it is decoded.

        InspectionError 409 without an engine, 429 while others try, 404 and 422 as of inspections.
        """
        if not self.possible:
            detail = (
                "this service has no engine of its own: its workers are separate processes, and images are "
                "tried where one is (--workers-inside 1); post the image as an inspection instead"
            )
            raise InspectionError(409, "no-engine", detail)
        self._runtime.admission.check(who)
        with self._seat():
            data, wanted = await read()
            live = self._runtime.scorer.traffic.live()  # a person waits: shadows come after that, too
            with live, self._runtime.engines.use(wanted.recipe) as model:
                async for event in self._try(data, wanted, model):
                    yield event

    @contextmanager
    def _seat(self) -> Iterator[None]:
        if self._running >= AT_ONCE:
            detail = f"{AT_ONCE} images are being tried already; wait until one is done and try again"
            raise InspectionError(429, "trials-busy", detail, retry_after_s=10)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _try(self, data: bytes, wanted: Metadata, model: Model) -> AsyncIterator[Event]:
        started = time.monotonic()
        profile = self._runtime.engines.profile(wanted.recipe, wanted.profile)
        mask_id, limits = await asyncio.to_thread(self._terms, wanted.recipe, profile, model)
        image = await self._runtime.decoder.decode(data)
        prepared = await prepare(
            model.hash, model.manifest.preprocess, image, started, {"decode": time.monotonic() - started}
        )
        ignore = await asyncio.to_thread(self._masks.for_scoring, mask_id)
        spec = model.manifest.profiles[profile]
        yield Begun(spec.kind, spec.network_calls)

        seen: asyncio.Queue[_Pixels | None] = asyncio.Queue()
        job = Job(
            new_id(),
            prepared.tensor,
            image_seed(data),
            profile,
            "backfill",
            time.monotonic() + _LONGEST_S,
            ignore,
            _filming(model, profile, prepared.tensor, seen),
        )
        assert model.batcher is not None
        waited_s = time.monotonic() - prepared.ready
        answer = asyncio.create_task(model.batcher.submit(job))
        answer.add_done_callback(lambda _: seen.put_nowait(None))
        try:
            while (pixels := await seen.get()) is not None:
                yield await asyncio.to_thread(pixels.shot)
            finished = _result(answer)
            prepared.spent_s["queue"] = waited_s + finished.queue_s
            judged = await asyncio.to_thread(
                _conclude, wanted.recipe, model, profile, image, prepared, finished, limits, mask_id
            )
        finally:
            answer.cancel()  # whoever went away leaves the engine before its next call
        healthy = judged.pictures["reconstruction"]
        yield Shot("reconstruction", 0.0, spec.network_calls, healthy, healthy)
        yield judged

    def _terms(self, recipe: str, profile: str, model: Model) -> tuple[str | None, InForce]:
        place = Place.of(recipe, model.hash, model.manifest, profile)
        return self._book.get(recipe).mask_id, self._limits.in_force(place)


def _filming(
    model: Model, profile: str, tensor: NDArray[np.float32], seen: "asyncio.Queue[_Pixels | None]"
) -> Filming:
    """What the engine's thread tells of the reconstruction, brought to the event loop."""
    loop = asyncio.get_running_loop()

    def show(frame: Frame) -> None:
        # As bytes at once: of floats a film would take four times the memory.
        clean = None if frame.clean is None else to_pixels(frame.clean)
        loop.call_soon_threadsafe(seen.put_nowait, _Pixels(frame, to_pixels(frame.noisy), clean))

    manifest = model.manifest
    small = shrink(tensor, manifest.network.reduce)
    return Filming(manifest.diffusion, manifest.profiles[profile], small, show)


def _result(answer: "asyncio.Task[Finished]") -> Finished:
    """The engine's answer; InspectionError says why there is none."""
    try:
        return answer.result()
    except Expired:
        detail = f"no result within {_LONGEST_S:.0f} s: cameras come first; try again when less is to be done"
        raise InspectionError(503, "trial-expired", detail) from None
    except Exception as error:
        raise _failed(error) from error


def _failed(error: Exception) -> InspectionError:
    told = failure(error)
    return InspectionError(500, told["error_code"], told["error_detail"])


def _conclude(
    recipe: str,
    model: Model,
    profile: str,
    image: Image,
    prepared: Prepared,
    finished: Finished,
    limits: InForce,
    mask_id: str | None,
) -> Judged:
    """As `service.conclude`, but that nothing is stored."""
    begun = time.monotonic()
    raw, calibration = finished.result, model.manifest.calibration[profile]
    try:
        judgement = judge(raw, calibration, limits.limits, image.size)
    except Exception as error:
        raise _failed(error) from error
    healthy = render.encode_reconstruction(raw.reconstruction)
    pictures = {
        "image": render.preview(image, _PREVIEW_PX),
        "reconstruction": healthy,
        "difference": render.difference(image, healthy),
        "overlay": render.overlay(raw.map, calibration.map_max),
    }
    outlines = render.outlines(raw.map, calibration.score.raw(limits.limits.review), image.size)
    now = time.monotonic()
    spent_s: dict[str, Any] = {
        **prepared.spent_s,
        "inference": finished.inference_s,
        "postprocess": now - begun,
        "total": now - prepared.started,
    }
    return Judged(
        recipe,
        profile,
        model,
        image.size,
        raw.score,
        judgement,
        limits,
        mask_id,
        calibration.map_max,
        outlines,
        {stage: round(1000 * seconds, 3) for stage, seconds in spent_s.items()},
        pictures,
    )
