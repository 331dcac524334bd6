"""One inspection from its row to the columns of its end.

    blob -> decode -> preprocess -> batcher -> engine -> verdict, maps as blobs

What this process accepted itself is prepared already (`service.prepare.Handover`).
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from models.decode import Image
from models.masks import Mask
from models.preprocess import Preprocess
from models.samplers import digest_seed
from service.batching import Job
from service.conclude import conclude
from service.db.tables import InspectionRow
from service.decode import Decoder
from service.engines import EnginePool
from service.ledger import Ledger
from service.prepare import Handover, Prepared, network_input
from service.queue.base import Priority
from service.recipes.masking import Masks
from service.tracing import span


@dataclass(frozen=True)
class Inspected:
    """The columns of a finished row, and what the network was given, made as `preprocess` says."""

    values: dict[str, Any]
    prepared: Prepared
    preprocess: Preprocess


class Runner:
    """Owns what it takes to inspect; knows nothing of queues."""

    def __init__(self, ledger: Ledger, engines: EnginePool, decoder: Decoder, handover: Handover) -> None:
        self._ledger, self.engines, self._decoder, self.handover = ledger, engines, decoder, handover
        self.masks = Masks(ledger.database, ledger.blobs)

    async def inspect(self, row: InspectionRow) -> Inspected:
        """Run the model of the row's recipe; raises what went wrong, Cancelled when the engine is closed."""
        with self.engines.use(row.recipe) as model:
            assert model.batcher is not None
            prepared = self.handover.find(row.id)
            if prepared is None or prepared.model_hash != model.hash:
                with span("load"):
                    prepared = await self.load(row, model.hash, model.manifest.preprocess)
            profile = row.profile
            if profile not in model.manifest.profiles:  # accepted under another model
                profile = self.engines.default_profile(row.recipe, model.manifest)
            ignore = None
            if row.mask_id is not None:
                ignore = await asyncio.to_thread(self.masks.for_scoring, row.mask_id)
            waited_s = time.monotonic() - prepared.ready
            with span("infer", inlier__profile=profile) as traced:
                finished = await model.batcher.submit(_job(row, prepared, profile, ignore))
                traced.note(inlier__queue_s=finished.queue_s, inlier__inference_s=finished.inference_s)
            prepared.spent_s["queue"] = waited_s + finished.queue_s
            rate = self.engines.wish(row.recipe).audit_rate
            with span("conclude"):
                values = await conclude(
                    self._ledger, row, model, profile, prepared, finished, audit_rate=rate
                )
            return Inspected(values, prepared, model.manifest.preprocess)

    async def load(self, row: InspectionRow, model_hash: str, spec: Preprocess) -> Prepared:
        """The network's input from the stored image."""
        started = time.monotonic()
        data = await asyncio.to_thread(self._ledger.blobs.get, row.image_sha256)
        image = await self._decoder.decode(data)
        return await prepare(model_hash, spec, image, started, {"decode": time.monotonic() - started})


def _job(row: InspectionRow, prepared: Prepared, profile: str, ignore: Mask | None) -> Job:
    deadline = None
    if row.deadline_at is not None:
        deadline = time.monotonic() + (row.deadline_at - datetime.now(UTC)).total_seconds()
    return Job(
        row.id,
        prepared.tensor,
        digest_seed(row.image_sha256),  # the same image gives the same verdict
        profile,
        cast(Priority, row.priority),
        deadline,
        ignore,
    )


async def prepare(
    model_hash: str, spec: Preprocess, image: Image, started: float, spent_s: dict[str, float]
) -> Prepared:
    """An image as a model wants it; `started` (monotonic) is when this process first had it."""
    begun = time.monotonic()
    made = await asyncio.to_thread(network_input, image, spec)
    ready = time.monotonic()
    return Prepared(model_hash, *made, started, ready, {**spent_s, "preprocess": ready - begun})
